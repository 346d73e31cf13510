// go run . LIBRARY URL: as python_clients.py.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
)

var (
	headers  = http.Header{"Authorization": {"Bearer " + os.Getenv("HELIOSD_TOKEN")}}
	insecure = &tls.Config{InsecureSkipVerify: true}
)

func useGorilla(url string) error {
	dialer := *gorilla.DefaultDialer
	dialer.TLSClientConfig = insecure
	socket, _, err := dialer.Dial(url, headers)
	if err != nil {
		return err
	}
	for {
		_, data, err := socket.ReadMessage()
		var closed *gorilla.CloseError
		if errors.As(err, &closed) {
			fmt.Println("closed", closed.Code)
			return nil
		} else if err != nil {
			return err
		}
		fmt.Println(string(data))
	}
}

func useCoder(url string) error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure}}
	socket, _, err := coder.Dial(context.Background(), url, &coder.DialOptions{HTTPHeader: headers, HTTPClient: client})
	if err != nil {
		return err
	}
	for {
		_, data, err := socket.Read(context.Background())
		var closed coder.CloseError
		if errors.As(err, &closed) {
			fmt.Println("closed", int(closed.Code))
			return nil
		} else if err != nil {
			return err
		}
		fmt.Println(string(data))
	}
}

func useGobwas(url string) error {
	dialer := ws.Dialer{Header: ws.HandshakeHeaderHTTP(headers), TLSConfig: insecure}
	socket, buffered, _, err := dialer.Dial(context.Background(), url)
	if err != nil {
		return err
	}
	stream := &joined{socket, buffered}
	for {
		data, err := wsutil.ReadServerText(stream)
		var closed wsutil.ClosedError
		if errors.As(err, &closed) {
			fmt.Println("closed", int(closed.Code))
			return nil
		} else if err != nil {
			return err
		}
		fmt.Println(string(data))
	}
}

func main() {
	libraries := map[string]func(string) error{"gorilla": useGorilla, "coder": useCoder, "gobwas": useGobwas}
	if err := libraries[os.Args[1]](os.Args[2]); err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
}
