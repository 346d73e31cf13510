# perl mojo.pl URL: as python_clients.py, with Mojo::UserAgent.
use strict;
use warnings;
use Mojo::UserAgent;
$| = 1;
binmode STDOUT, ":utf8";
my $agent = Mojo::UserAgent->new(insecure => 1, inactivity_timeout => 0);
$agent->websocket($ARGV[0] => { Authorization => "Bearer $ENV{HELIOSD_TOKEN}" } => sub {
    my ($ua, $tx) = @_;
    return print("failed\n") && Mojo::IOLoop->stop unless $tx->is_websocket;
    $tx->on(message => sub { print $_[1], "\n" });
    $tx->on(finish => sub { print "closed $_[1]\n"; Mojo::IOLoop->stop });
});
Mojo::IOLoop->start;
