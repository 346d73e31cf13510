# perl anyevent.pl URL: as python_clients.py, with AnyEvent::WebSocket::Client.
use strict;
use warnings;
use AnyEvent;
use AnyEvent::WebSocket::Client;
$| = 1;
binmode STDOUT, ":utf8";
my $over   = AnyEvent->condvar;
my $client = AnyEvent::WebSocket::Client->new(
    ssl_no_verify => 1,
    http_headers  => { Authorization => "Bearer $ENV{HELIOSD_TOKEN}" },
    max_payload_size => 0,
);
my $kept;
$client->connect($ARGV[0])->cb(sub {
    $kept = eval { shift->recv } or do { print "failed $@\n"; return $over->send };
    $kept->on(each_message => sub { print $_[1]->decoded_body, "\n" });
    $kept->on(finish => sub { print "closed ", $_[0]->close_code // "none", "\n"; $over->send });
});
$over->recv;
