#!/usr/bin/env bash
# A client whose connection held for more than 15 minutes does not reconnect when it is cut.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

PATH=$PATH:/usr/local/go/bin
cd "$folder"
go mod init show >/dev/null 2>&1
go get github.com/r3labs/sse/v2@v2.10.0 gopkg.in/cenkalti/backoff.v1@v1.1.0 >/dev/null 2>&1

cat >show.go <<'GO'
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

// A clock that is ahead, instead of a test of a quarter of an hour.
type clock struct{ ahead time.Duration }

func (c *clock) Now() time.Time { return time.Now().Add(c.ahead) }

func main() {
	for _, held := range []time.Duration{14 * time.Minute, 16 * time.Minute} {
		moved := &clock{}
		connections := 0
		server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
			connections++
			answer.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(answer, "id: %d\ndata: {}\n\n", connections)
			answer.(http.Flusher).Flush()
			if connections == 1 {
				moved.ahead = held
				panic(http.ErrAbortHandler) // Cuts the connection; the second one ends in good order.
			}
		}))
		client := sse.NewClient(server.URL)
		strategy := backoff.NewExponentialBackOff() // What the client takes when it is given none.
		strategy.Clock = moved
		strategy.Reset()
		client.ReconnectStrategy = strategy
		err := client.SubscribeRaw(func(*sse.Event) {})
		fmt.Printf("cut after %v: %d connections, then %v; ", held, connections, err)
		server.Close()
	}
}
GO
output=$(go run show.go 2>"$folder/errors")

echo "version: github.com/r3labs/sse/v2 $(go list -m -f '{{.Version}}' github.com/r3labs/sse/v2), gopkg.in/cenkalti/backoff.v1 $(go list -m -f '{{.Version}}' gopkg.in/cenkalti/backoff.v1), $(go version | cut -d' ' -f3)"
echo "behaviour: a connection is one try of backoff.Retry, which gives up 15 minutes after it was called and is not told that a try went well: the time that a stream was up counts as time of retrying, and the first cut after it is the last"
printf 'output: %s\n' "$output"

if ! [[ $output == "cut after 14m0s: 2 connections, then <nil>; cut after 16m0s: 1 connections, then unexpected EOF; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
