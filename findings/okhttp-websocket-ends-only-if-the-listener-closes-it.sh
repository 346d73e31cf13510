#!/usr/bin/env bash
# No callback says that the connection has ended, unless the listener closes it as well.
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
"""Closes each connection at once with 1001, and says whether the client answered that."""
import sys
import time

from websockets.sync.server import serve


def handle(connection):
    began = time.monotonic()
    connection.close(1001, "the server stops")
    answer = connection.protocol.close_rcvd
    waited = "waited for it in vain" if time.monotonic() - began > 0.9 else "at once"
    print(f"answer {answer.code if answer else None}, {waited}", flush=True)


with serve(handle, "127.0.0.1", 0, close_timeout=1) as server:
    print(server.socket.getsockname()[1], file=sys.stderr, flush=True)
    server.serve_forever()
PYTHON

mkdir "$folder/client"
cat >"$folder/client/pom.xml" <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shown</groupId>
  <artifactId>shown</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>com.squareup.okhttp3</groupId>
      <artifactId>okhttp-jvm</artifactId>
      <version>5.5.1</version>
    </dependency>
  </dependencies>
</project>
POM
cat >"$folder/client/Show.java" <<'JAVA'
import java.util.concurrent.ConcurrentLinkedQueue;
import okhttp3.*;

public class Show {
    public static void main(String[] arguments) throws Exception {
        for (boolean closes : new boolean[] {false, true}) {
            var calls = new ConcurrentLinkedQueue<String>();
            var client = new OkHttpClient();
            client.newWebSocket(new Request.Builder().url(arguments[0]).build(), new WebSocketListener() {
                @Override public void onOpen(WebSocket socket, Response response) { calls.add("onOpen"); }
                @Override public void onClosing(WebSocket socket, int code, String reason) {
                    calls.add("onClosing " + code);
                    if (closes) socket.close(code, null);
                }
                @Override public void onClosed(WebSocket socket, int code, String reason) { calls.add("onClosed"); }
                @Override public void onFailure(WebSocket socket, Throwable error, Response response) { calls.add("onFailure"); }
            });
            Thread.sleep(6000);
            System.out.println((closes ? "close() in onClosing: " : "no close(): ") + String.join(", ", calls)
                + ", connections still held: " + client.connectionPool().connectionCount());
        }
        System.exit(0);
    }
}
JAVA
mvn -q -B -f "$folder/client/pom.xml" dependency:build-classpath -Dmdep.outputFile="$folder/classpath" >"$folder/mvn" 2>&1
javac -cp "$(cat "$folder/classpath")" -d "$folder/client" "$folder/client/Show.java"

"$folder/venv/bin/python" "$folder/server.py" >"$folder/answers" 2>"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
timeout 60 java -cp "$folder/client:$(cat "$folder/classpath")" Show "http://127.0.0.1:$(head -1 "$folder/port")/" >"$folder/seen"
output=$(paste -d'|' "$folder/seen" "$folder/answers" | sed 's/|/; server: /' | paste -sd'|' | sed 's/|/ | /')

echo "version: OkHttp 5.5.1, $(java -version 2>&1 | head -1 | tr -d '"'); server websockets 17.4"
echo "behaviour: OkHttp does not answer a close frame by itself; unless onClosing calls close(), the server waits for the answer in vain, and after the server has cut the connection neither onClosed nor onFailure is called"
printf 'output: %s\n' "$output"

if ! [[ $output == "no close(): onOpen, onClosing 1001, connections still held: "*"; server: answer None, waited for it in vain | close() in onClosing: onOpen, onClosing 1001, onClosed, "*"; server: answer 1001, at once" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
