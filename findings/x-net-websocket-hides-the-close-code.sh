#!/usr/bin/env bash
# However a server closes, the client sees the same end of file, and no code.
set -euo pipefail

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
export GOPATH="$folder/gopath" GOFLAGS=-mod=mod

cat >"$folder/go.mod" <<'MODULE'
module shown

go 1.25.0

require (
	github.com/coder/websocket v1.8.14
	golang.org/x/net v0.47.0
)
MODULE
cat >"$folder/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"
	plain "golang.org/x/net/websocket"
)

func main() {
	codes := []websocket.StatusCode{1000, 1001, 1011, 4401}
	next := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			panic(err)
		}
		_ = connection.Close(codes[next/2], "a reason")
	}))
	url := "ws" + strings.TrimPrefix(server.URL, "http")
	for place, code := range codes {
		next = 2 * place
		one, err := plain.Dial(url, "", "http://localhost/")
		if err != nil {
			panic(err)
		}
		var text string
		err = plain.Message.Receive(one, &text)
		fmt.Printf("%d: %v", code, err)
		next++
		two, _, _ := websocket.Dial(context.Background(), url, nil)
		_, _, err = two.Read(context.Background())
		fmt.Printf(" (coder/websocket: %d); ", websocket.CloseStatus(err))
	}
	fmt.Println()
}
GO
(cd "$folder" && go build -o shown . 2>"$folder/build")
output=$(timeout 60 "$folder/shown")

echo "version: golang.org/x/net $(go version -m "$folder/shown" | awk '$2 == "golang.org/x/net" {print $3}'), coder/websocket $(go version -m "$folder/shown" | awk '$2 == "github.com/coder/websocket" {print $3}'), $(go version | cut -d' ' -f3)"
echo "behaviour: an orderly end, a server that goes away, a fault of the server and a code of the application are one and the same io.EOF, and no call gives the code or the reason: a client cannot know whether to come back, or to log in first"
printf 'output: %s\n' "$output"

if ! [[ $output == "1000: EOF (coder/websocket: 1000); 1001: EOF (coder/websocket: 1001); 1011: EOF (coder/websocket: 1011); 4401: EOF (coder/websocket: 4401); " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
