#!/usr/bin/env bash
# An event whose end never came is delivered as far as it came, and counts as received when the client reconnects.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

cat >"$folder/server.py" <<'PYTHON'
"""The first stream ends within its second event. Prints with which id the client comes again."""
import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        resumed = self.headers.get("Last-Event-ID")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if resumed is None:
            self.wfile.write(b'retry: 50\nid: 1\ndata: {"jobs":1}\n\nid: 2\ndata: {"jobs":')
        else:
            print(f"resumes after {resumed}", flush=True)
            self.wfile.write(b'id: 3\ndata: {"jobs":3}\n\n')

    def log_message(self, *_):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, file=sys.stderr, flush=True)
    server.serve_forever()
PYTHON
python3 "$folder/server.py" >"$folder/resumed" 2>"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done

mkdir "$folder/client"
dependency() { printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>3.1.10</version></dependency>\n' "$@"; }
cat >"$folder/client/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shown</groupId>
  <artifactId>shown</artifactId>
  <version>1</version>
  <dependencies>
    $(dependency org.glassfish.jersey.core jersey-client)
    $(dependency org.glassfish.jersey.inject jersey-hk2)
    $(dependency org.glassfish.jersey.media jersey-media-sse)
  </dependencies>
</project>
POM
cat >"$folder/client/Show.java" <<'JAVA'
import jakarta.ws.rs.client.ClientBuilder;
import jakarta.ws.rs.sse.SseEventSource;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

public class Show {
    public static void main(String[] arguments) throws Exception {
        var third = new CountDownLatch(3);
        var source = SseEventSource.target(ClientBuilder.newClient().target(arguments[0])).build();
        source.register(event -> {
            System.out.print(event.getId() + " " + event.readData() + "; ");
            third.countDown();
        });
        source.open();
        third.await(20, TimeUnit.SECONDS);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }
}
JAVA
mvn -q -B -f "$folder/client/pom.xml" dependency:build-classpath -Dmdep.outputFile="$folder/classes" >"$folder/build" 2>&1 ||
    { cat "$folder/build"; exit 1; }
events=$(timeout 60 java -cp "$(cat "$folder/classes")" "$folder/client/Show.java" "http://127.0.0.1:$(head -n 1 "$folder/port")/" 2>"$folder/errors")
resumed=$(head -n 1 "$folder/resumed")

echo "version: Jersey 3.1.10 (jersey-media-sse), $(java --version | head -n 1)"
echo "behaviour: where a stream is cut within an event, SseEventSource delivers what has come of it, which the format says to discard, and sends its id as Last-Event-ID: the whole event never comes"
printf 'output: %s%s\n' "$events" "$resumed"

if ! [[ $events == '1 {"jobs":1}; 2 {"jobs":; 3 {"jobs":3}; ' && $resumed == "resumes after 2" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
