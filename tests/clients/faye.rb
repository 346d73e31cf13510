# ruby faye.rb URL: as python_clients.py, with faye-websocket.
require "eventmachine"
require "faye/websocket"
$stdout.sync = true
EM.run do
  headers = { "Authorization" => "Bearer #{ENV["HELIOSD_TOKEN"]}" }
  socket = Faye::WebSocket::Client.new(ARGV[0], [], headers: headers, tls: { verify_peer: false })
  socket.on(:message) { |event| puts event.data }
  socket.on(:close) do |event|
    puts "closed #{event.code}"
    EM.stop
  end
end
