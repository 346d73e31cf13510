#!/usr/bin/env bash
# A message that is longer than a client takes: the server hears 1009 of one library, 1011 of another, and nothing of two.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check websockets==17.4

cat >"$folder/server.py" <<'PYTHON'
"""Sends one text of as many KiB as the path says, and prints how the client closed."""
import asyncio
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def hold(connection):
    _, name, size = connection.request.path.split("/")
    try:
        await connection.send("x" * (int(size) << 10))
        await connection.wait_closed()
    except ConnectionClosed:
        pass
    received = connection.protocol.close_rcvd
    print(name, received.code if received else "no close frame", flush=True)


async def main():
    async with serve(hold, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        print(server.sockets[0].getsockname()[1], file=sys.stderr, flush=True)
        await asyncio.sleep(600)


asyncio.run(main())
PYTHON

mkdir "$folder/client"
dependency() { printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n' "$@"; }
cat >"$folder/client/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shown</groupId>
  <artifactId>shown</artifactId>
  <version>1</version>
  <dependencies>
    $(dependency org.eclipse.jetty.websocket jetty-websocket-jetty-client 12.1.0)
    $(dependency org.glassfish.tyrus.bundles tyrus-standalone-client 2.2.0)
    $(dependency io.projectreactor.netty reactor-netty-http 1.2.9)
    $(dependency io.vertx vertx-core 4.5.21)
  </dependencies>
</project>
POM
cat >"$folder/client/Show.java" <<'JAVA'
import io.vertx.core.Vertx;
import jakarta.websocket.*;
import java.net.URI;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.eclipse.jetty.websocket.api.Session.Listener;
import org.eclipse.jetty.websocket.client.WebSocketClient;
import org.glassfish.tyrus.client.ClientManager;
import reactor.netty.http.client.HttpClient;

public class Show {
    public static class JettyEnd implements Listener.AutoDemanding {
        final CompletableFuture<Integer> got;
        JettyEnd(CompletableFuture<Integer> got) { this.got = got; }
        public void onWebSocketText(String text) { got.complete(text.length()); }
        public void onWebSocketError(Throwable cause) { got.complete(0); }
    }

    public static class TyrusEnd extends Endpoint {
        final CompletableFuture<Integer> got;
        TyrusEnd(CompletableFuture<Integer> got) { this.got = got; }
        public void onOpen(jakarta.websocket.Session session, EndpointConfig config) {
            session.addMessageHandler(String.class, text -> got.complete(text.length()));
        }
        public void onClose(jakarta.websocket.Session session, CloseReason reason) { got.complete(0); }
    }

    interface Client { void open(URI url, CompletableFuture<Integer> got) throws Exception; }

    static void look(String name, String url, int[] sizes, Client client) throws Exception {
        for (int size : sizes) {
            var got = new CompletableFuture<Integer>();
            client.open(URI.create(url + "/" + name + "/" + size), got);
            System.out.print(name + " " + size + " KiB " + (got.get(20, TimeUnit.SECONDS) == size << 10 ? "taken" : "refused") + "; ");
            System.out.flush();
        }
    }

    public static void main(String[] arguments) {
        try {
            lookAtAll(arguments[0]);
            Runtime.getRuntime().halt(0);
        } catch (Exception error) {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    static void lookAtAll(String url) throws Exception {
        var jetty = new WebSocketClient();
        jetty.start();
        look("Jetty", url, new int[] {60, 70}, (at, got) -> jetty.connect(new JettyEnd(got), at).get());
        look("Tyrus", url, new int[] {60, 5000}, (at, got) -> ClientManager.createClient().connectToServer(
            new TyrusEnd(got), ClientEndpointConfig.Builder.create().build(), at));
        look("ReactorNetty", url, new int[] {60, 70}, (at, got) -> HttpClient.create().websocket().uri(at.toString())
            .handle((in, out) -> in.receive().asString().doOnNext(text -> got.complete(text.length())).then())
            .subscribe(nothing -> {}, error -> got.complete(0)));
        var vertx = Vertx.vertx();
        look("Vert.x", url, new int[] {60, 70}, (at, got) -> vertx.createWebSocketClient()
            .connect(at.getPort(), at.getHost(), at.getPath()).onSuccess(socket -> {
                socket.textMessageHandler(text -> got.complete(text.length()));
                socket.exceptionHandler(error -> got.complete(0));
            }));
    }
}
JAVA
mvn -q -B -f "$folder/client/pom.xml" dependency:build-classpath -Dmdep.outputFile="$folder/classes" >"$folder/build" 2>&1 ||
    { cat "$folder/build"; exit 1; }

"$folder/venv/bin/python" "$folder/server.py" >"$folder/closed" 2>"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
taken=$(timeout 120 java -cp "$(cat "$folder/classes")" "$folder/client/Show.java" "ws://127.0.0.1:$(head -n 1 "$folder/port")" 2>"$folder/errors")
for _ in $(seq 100); do [ "$(wc -l <"$folder/closed")" -ge 8 ] && break; sleep 0.1; done
# Those whose message was taken end with the program.
closed=$(for name in Jetty Tyrus ReactorNetty Vert.x; do grep "^$name " "$folder/closed" | head -n 1 | tr '\n' ','; done)

echo "version: Jetty 12.1.0, Tyrus 2.2.0, Reactor Netty 1.2.9, Vert.x 4.5.21, $(java --version | head -n 1); server websockets 17.4"
echo "behaviour: the clients that refuse a message as too long each tell the server something else: 1009 (Jetty), 1011 (Tyrus), and no close frame at all (Reactor Netty and Vert.x, which cut the connection)"
printf 'output: %sclosed with: %s\n' "$taken" "$closed"

if ! [[ $taken == "Jetty 60 KiB taken; Jetty 70 KiB refused; Tyrus 60 KiB taken; Tyrus 5000 KiB refused; ReactorNetty 60 KiB taken; ReactorNetty 70 KiB refused; Vert.x 60 KiB taken; Vert.x 70 KiB refused; " &&
    $closed == "Jetty 1009,Tyrus 1011,ReactorNetty no close frame,Vert.x no close frame," ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
