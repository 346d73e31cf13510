#!/usr/bin/env bash
# A listener that only counts the pings of a server gets no message any more after the first of them.
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
"""Sends a text, pings, and sends two more texts when the ping is answered."""
import sys

from websockets.sync.server import serve


def handle(connection):
    connection.send("one")
    print("pong" if connection.ping().wait(5) else "no pong", flush=True)
    connection.send("two")
    connection.send("three")
    for _ in connection:
        pass


with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
    print(server.socket.getsockname()[1], file=sys.stderr, flush=True)
    server.serve_forever()
PYTHON

cat >"$folder/Show.java" <<'JAVA'
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.util.concurrent.*;

public class Show {
    static class Texts implements WebSocket.Listener {
        final ConcurrentLinkedQueue<String> calls = new ConcurrentLinkedQueue<>();
        @Override public CompletionStage<?> onText(WebSocket socket, CharSequence text, boolean last) {
            calls.add(text.toString());
            socket.request(1);
            return null;
        }
    }

    static class TextsAndPings extends Texts {
        @Override public CompletionStage<?> onPing(WebSocket socket, ByteBuffer data) {
            calls.add("(ping)");
            return null;
        }
    }

    static String run(String url, Texts listener) throws Exception {
        HttpClient.newHttpClient().newWebSocketBuilder().buildAsync(URI.create(url), listener).join();
        Thread.sleep(2000);
        return String.join(" ", listener.calls);
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("onPing left alone: " + run(arguments[0], new Texts())
            + "; onPing that returns null: " + run(arguments[0], new TextsAndPings()));
        System.exit(0);
    }
}
JAVA
javac -d "$folder" "$folder/Show.java"

"$folder/venv/bin/python" "$folder/server.py" >"$folder/pongs" 2>"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
output="$(timeout 60 java -cp "$folder" Show "ws://127.0.0.1:$(head -1 "$folder/port")/"); server: $(paste -sd, "$folder/pongs")"

echo "version: java.net.http of $(java -version 2>&1 | head -1 | tr -d '"'); server websockets 17.4"
echo "behaviour: pings count against request(n) like messages, and the default onPing requests the next one: a listener with an onPing of its own, which returns null like the default, has its pong sent and hears nothing more"
printf 'output: %s\n' "$output"

if ! [[ $output == "onPing left alone: one two three; onPing that returns null: one (ping); server: pong,pong" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
