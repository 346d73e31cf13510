// node node_clients.js LIBRARY URL: as python_clients.py.
const [library, url] = process.argv.slice(2);
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
process.removeAllListeners("warning");
const headers = { Authorization: `Bearer ${process.env.HELIOSD_TOKEN}` };
const say = (text) => process.stdout.write(`${text}\n`);

const libraries = {
  ws() {
    const socket = new (require("ws"))(url, { headers });
    socket.on("message", (data) => say(data));
    socket.on("close", (code) => say(`closed ${code}`));
  },
  undici() {
    const { Agent, WebSocket } = require("undici");
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
    const socket = new WebSocket(url, { headers, dispatcher });
    socket.onmessage = (event) => say(event.data);
    socket.onclose = (event) => { say(`closed ${event.code}`); process.exit(0); };
  },
  "faye-websocket"() {
    const { Client } = require("faye-websocket");
    const socket = new Client(url, [], { headers, tls: { rejectUnauthorized: false } });
    socket.on("message", (event) => say(event.data));
    socket.on("close", (event) => say(`closed ${event.code}`));
  },
  websocket() {
    const client = new (require("websocket").client)({ tlsOptions: { rejectUnauthorized: false } });
    client.on("connect", (socket) => {
      socket.on("message", (message) => say(message.utf8Data));
      socket.on("close", (code) => say(`closed ${code}`));
    });
    client.connect(url, [], undefined, headers);
  },
};
libraries[library]();
