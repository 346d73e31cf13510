#!/usr/bin/env bash
# A program that reads the events of its stream, and not the errors, hears nothing after the first reconnect.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

PATH=$PATH:/usr/local/go/bin
cd "$folder"
go mod init show >/dev/null 2>&1
go get github.com/donovanhide/eventsource@v0.0.0-20210830082556-c59027999da0 \
    github.com/launchdarkly/eventsource@v1.11.0 >/dev/null 2>&1

cat >show.go <<'GO'
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	donovanhide "github.com/donovanhide/eventsource"
	launchdarkly "github.com/launchdarkly/eventsource"
)

const wanted = 5

// How many of the wanted events come within three seconds.
func count[E any](events <-chan E) int {
	enough := time.After(3 * time.Second)
	for seen := 0; ; seen++ {
		if seen == wanted {
			return seen
		}
		select {
		case <-events:
		case <-enough:
			return seen
		}
	}
}

func drain(errors <-chan error) {
	for range errors {
	}
}

func main() {
	// Each connection has one event and ends in good order.
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(answer, "retry: 50\ndata: {}\n\n")
	}))
	for _, read := range []bool{false, true} {
		one, err := donovanhide.Subscribe(server.URL, "")
		if err != nil {
			panic(err)
		}
		other, err := launchdarkly.Subscribe(server.URL, "")
		if err != nil {
			panic(err)
		}
		if read {
			go drain(one.Errors)
			go drain(other.Errors)
		}
		fmt.Printf("errors read %t: donovanhide %d, launchdarkly %d; ", read, count(one.Events), count(other.Events))
	}
}
GO
output=$(go run show.go 2>"$folder/errors")

version() { go list -m -f '{{.Version}}' "$1"; }
echo "version: github.com/donovanhide/eventsource $(version github.com/donovanhide/eventsource), github.com/launchdarkly/eventsource $(version github.com/launchdarkly/eventsource), $(go version | cut -d' ' -f3)"
echo "behaviour: the end of a connection goes into Stream.Errors, an unbuffered channel, before the stream reconnects: where nobody reads it (the first library's documentation asks for no action) there is never another event"
printf 'output: events of five, %s\n' "$output"

if ! [[ $output == "errors read false: donovanhide 1, launchdarkly 1; errors read true: donovanhide 5, launchdarkly 5; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
