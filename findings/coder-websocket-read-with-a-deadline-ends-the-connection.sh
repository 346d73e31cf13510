#!/usr/bin/env bash
# A read that may wait no longer closes the connection, and what was on its way is lost.
set -euo pipefail

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
export GOPATH="$folder/gopath" GOFLAGS=-mod=mod

cat >"$folder/go.mod" <<'MODULE'
module shown

go 1.23

require github.com/coder/websocket v1.8.14
MODULE
cat >"$folder/main.go" <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
)

func main() {
	ask := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection, err := websocket.Accept(w, r, nil)
		if err != nil {
			panic(err)
		}
		for text := range ask {
			_ = connection.Write(r.Context(), websocket.MessageText, []byte(text))
		}
	}))
	client, _, err := websocket.Dial(context.Background(), server.URL, nil)
	if err != nil {
		panic(err)
	}
	read := func(wait time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		_, data, err := client.Read(ctx)
		return string(data), err
	}
	ask <- "one"
	text, err := read(5 * time.Second)
	fmt.Printf("read %q, %v; ", text, err)
	_, err = read(100 * time.Millisecond)
	fmt.Printf("nothing came within 0.1 s: deadline %v; ", errors.Is(err, context.DeadlineExceeded))
	ask <- "two"
	_, err = read(5 * time.Second)
	fmt.Printf("the next read failed: %v\n", err != nil)
}
GO
(cd "$folder" && go build -o shown . 2>"$folder/build")
output=$(timeout 60 "$folder/shown")

echo "version: coder/websocket $(go version -m "$folder/shown" | awk '$2 == "github.com/coder/websocket" {print $3}'), $(go version | cut -d' ' -f3)"
echo "behaviour: the context of Read is not only the limit of that wait: when it ends, the whole connection is closed, so that a client that looks for a message now and then loses its connection at the first time there is none"
printf 'output: %s\n' "$output"

if ! [[ $output == 'read "one", <nil>; nothing came within 0.1 s: deadline true; the next read failed: true' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
