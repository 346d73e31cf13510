// A WebSocket hub as Helios had it, and as gorilla's chat example teaches it: one goroutine owns the set of clients,
// each client has a channel of 256 messages, a goroutine that encodes and writes what comes out of it with
// conn.WriteJSON, and a goroutine that reads. With -prepared the frame is made once and shared (PreparedMessage).
//
// It binds a free port of the loopback and prints it on standard error, as heliosd does.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

const (
	bufferSize   = 256
	writeTimeout = 10 * time.Second
	readTimeout  = 10 * time.Minute // no pings while others are measured beside it
	pingInterval = 9 * time.Minute
)

// outgoing is a message on its way to all clients.
type outgoing struct {
	message  *Message
	prepared *websocket.PreparedMessage // only with -prepared
}

type Client struct {
	hub  *Hub
	conn *websocket.Conn
	send chan outgoing
}

type Hub struct {
	clients    map[*Client]bool
	register   chan *Client
	unregister chan *Client
	broadcast  chan outgoing
}

func (h *Hub) run() {
	for {
		select {
		case client := <-h.register:
			h.clients[client] = true
		case client := <-h.unregister:
			h.leave(client)
		case message := <-h.broadcast:
			for client := range h.clients {
				select {
				case client.send <- message:
				default:
					h.leave(client)
				}
			}
		}
	}
}

func (h *Hub) leave(client *Client) {
	if h.clients[client] {
		delete(h.clients, client)
		close(client.send)
	}
}

func (c *Client) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(65536)
	c.conn.SetReadDeadline(time.Now().Add(readTimeout))
	c.conn.SetPongHandler(func(string) error {
		return c.conn.SetReadDeadline(time.Now().Add(readTimeout))
	})
	for {
		if _, _, err := c.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (c *Client) writePump() {
	ticker := time.NewTicker(pingInterval)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case message, open := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if !open {
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.write(message) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func (c *Client) write(out outgoing) error {
	if out.prepared != nil {
		return c.conn.WritePreparedMessage(out.prepared)
	}
	return c.conn.WriteJSON(out.message)
}

// beats ticks at an interval; from the first byte on that comes through BENCH_BEATS, once for each such byte instead.
func beats(interval time.Duration) <-chan struct{} {
	due := make(chan struct{}, bufferSize)
	ticker := time.NewTicker(interval)
	driven := make(chan int)
	if fd, err := strconv.Atoi(os.Getenv("BENCH_BEATS")); err == nil {
		go func() {
			file := os.NewFile(uintptr(fd), "beats")
			bytes := make([]byte, 64)
			for {
				count, err := file.Read(bytes)
				if err != nil {
					return
				}
				driven <- count
			}
		}()
	}
	go func() {
		for {
			select {
			case <-ticker.C:
				due <- struct{}{}
			case count := <-driven:
				ticker.Stop()
				for ; count > 0; count-- {
					due <- struct{}{}
				}
			}
		}
	}()
	return due
}

func (h *Hub) beat(beats <-chan struct{}, status *Status, prepare bool) {
	for range beats {
		now := time.Now().UTC().Truncate(time.Microsecond)
		of := *status
		of.ObservedAt = now
		out := outgoing{message: &Message{Type: "status_update", Timestamp: now, Data: &of}}
		if prepare {
			text, err := json.Marshal(out.message)
			if err != nil {
				log.Fatal(err)
			}
			if out.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, text); err != nil {
				log.Fatal(err)
			}
		}
		h.broadcast <- out
	}
}

func main() {
	interval := flag.Duration("interval", 100*time.Millisecond, "between two messages")
	size := flag.Int("size", 600, "bytes of a message")
	certificate := flag.String("cert", "", "PEM file of a certificate and its key: speak TLS")
	prepared := flag.Bool("prepared", false, "encode once and share the frame (PreparedMessage)")
	flag.Parse()

	hub := &Hub{
		clients:    make(map[*Client]bool),
		register:   make(chan *Client, bufferSize),
		unregister: make(chan *Client, bufferSize),
		broadcast:  make(chan outgoing, bufferSize),
	}
	go hub.run()
	go hub.beat(beats(*interval), statusOfSize(*size), *prepared)

	// The write buffer holds a whole message: a smaller one would cut it into fragments, with a system call for each.
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 4096}
	http.HandleFunc("/ws/cluster", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered already
		}
		client := &Client{hub: hub, conn: conn, send: make(chan outgoing, bufferSize)}
		hub.register <- client
		go client.writePump()
		go client.readPump()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "{\"event\":\"ready\",\"address\":\"%s\"}\n", listener.Addr())
	if *certificate != "" {
		log.Fatal(http.ServeTLS(listener, nil, *certificate, *certificate))
	}
	log.Fatal(http.Serve(listener, nil))
}
