// Prints what happens in the cluster. Needs gorilla/websocket (Debian: golang-github-gorilla-websocket-dev).
//
//	HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… go run .
//
// It logs in, connects with the token, pings, and connects again, each time after a longer wait.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	pingInterval = 20 * time.Second
	readTimeout  = 60 * time.Second
	longestWait  = 30 * time.Second
)

var errRefused = errors.New("login refused")

type message struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Seq       uint64          `json:"seq,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

func login(base, user, password string) (string, error) {
	body, err := json.Marshal(map[string]string{"username": user, "password": password})
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Post(base+"/api/auth/login", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	switch answer.StatusCode {
	case http.StatusOK:
		var session struct{ Token string }
		return session.Token, json.Unmarshal(text, &session)
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return "", fmt.Errorf("%w: %s", errRefused, text)
	default:
		return "", fmt.Errorf("login: %s: %s", answer.Status, text)
	}
}

// watch prints messages until the connection ends. Only it writes to the connection but for the pings' goroutine,
// which begins after the subscription: gorilla allows one writer at a time.
func watch(base, token string) error {
	target := "ws" + strings.TrimPrefix(base, "http") + "/ws/cluster?token=" + url.QueryEscape(token)
	conn, _, err := websocket.DefaultDialer.Dial(target, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	everything := map[string]bool{
		"status": true, "latency": true, "uptime": true, "snapshot": true,
		"custom_metrics": true, "state_changes": true, "peer_changes": true,
	}
	if err := conn.WriteJSON(map[string]interface{}{"type": "subscribe", "data": everything}); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go ping(conn, done)
	for {
		conn.SetReadDeadline(time.Now().Add(readTimeout)) // the pongs alone come more often
		var m message
		if err := conn.ReadJSON(&m); err != nil {
			return err
		}
		fmt.Printf("%s %-14s %s\n", m.Timestamp.Format(time.RFC3339), m.Type, m.Data)
	}
}

func ping(conn *websocket.Conn, done <-chan struct{}) {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			if conn.WriteJSON(message{Type: "ping", Timestamp: time.Now()}) != nil {
				return // the reader learns of it, too
			}
		}
	}
}

func main() {
	base := strings.TrimSuffix(os.Getenv("HELIOSD_URL"), "/")
	if base == "" {
		base = "http://127.0.0.1:8080"
	}
	rand.Seed(time.Now().UnixNano())
	for wait := time.Second; ; wait = min(2*wait, longestWait) {
		started := time.Now()
		token, err := login(base, os.Getenv("HELIOSD_USER"), os.Getenv("HELIOSD_PASSWORD"))
		if errors.Is(err, errRefused) {
			log.Fatal(err)
		}
		if err == nil {
			err = watch(base, token)
		}
		if time.Since(started) > time.Minute {
			wait = time.Second
		}
		log.Printf("disconnected: %v", err)
		// Half of the wait by chance: many clients lose a daemon at one moment.
		time.Sleep(wait/2 + time.Duration(rand.Int63n(int64(wait/2))))
	}
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
