// Follows the cluster and misses no event: over restarts of the daemon, of the network and of itself. Needs
// gorilla/websocket (Debian: golang-github-gorilla-websocket-dev).
//
//	go run . -api http://127.0.0.1:8080 -user admin -pass …
//
// What the flags leave out is taken from HELIOSD_URL, HELIOSD_USER and HELIOSD_PASSWORD; a password in a flag can be
// read by everybody on the machine. -v prints every message as it came. With -cursor FILE the next run goes on where
// this one stopped. docs/protocol.md is what this program goes by,
// but for the history, which it reads beside the open connection; the page has a simpler way.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	deadAfter    = 40 * time.Second // 2 x ping_interval: not even a ping came
	firstWait    = 500 * time.Millisecond
	longestWait  = 30 * time.Second
	steadyAfter  = 10 * time.Second
	largest      = 2 << 20 // twice websocket.max_status_bytes
	historyLimit = 1000
)

// errEnd ends the program: trying again is of no use.
var errEnd = errors.New("not trying again")

// later asks for a longer wait than the usual one.
type later struct {
	error
	wait time.Duration
}

type message struct {
	Type        string          `json:"type"`
	Timestamp   string          `json:"timestamp"`
	Seq         uint64          `json:"seq"`
	Provisional bool            `json:"provisional"`
	Data        json.RawMessage `json:"data"`
}

type cursor struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

type follower struct {
	api, user, pass, file string
	verbose               bool
	token                 string
	at                    *cursor // nil until the first welcome
}

func main() {
	f := &follower{}
	flag.StringVar(&f.api, "api", or(os.Getenv("HELIOSD_URL"), "http://127.0.0.1:8080"), "the daemon's address")
	flag.StringVar(&f.user, "user", os.Getenv("HELIOSD_USER"), "who logs in")
	flag.StringVar(&f.pass, "pass", os.Getenv("HELIOSD_PASSWORD"), "the password; better in HELIOSD_PASSWORD")
	flag.StringVar(&f.file, "cursor", os.Getenv("HELIOSD_CURSOR"), "where to keep the cursor for the next run")
	flag.BoolVar(&f.verbose, "v", false, "print every message as it came")
	flag.Parse()
	f.api = strings.TrimSuffix(f.api, "/")
	if text, err := os.ReadFile(f.file); err == nil {
		if err := json.Unmarshal(text, &f.at); err != nil {
			log.Fatalf("%s: %v", f.file, err)
		}
	}
	rand.Seed(time.Now().UnixNano())
	ceiling := firstWait
	for {
		started := time.Now()
		err := f.connection()
		if errors.Is(err, errEnd) {
			log.Fatal(err)
		}
		if time.Since(started) > steadyAfter {
			ceiling = firstWait
		}
		// The upper three quarters, by chance: many clients lose a daemon at one moment.
		wait := ceiling/4 + time.Duration(rand.Int63n(int64(3*ceiling/4)))
		if asked := (later{}); errors.As(err, &asked) && asked.wait > wait {
			wait = asked.wait
		}
		log.Printf("%v; again in %.1f s", err, wait.Seconds())
		time.Sleep(wait)
		if ceiling *= 2; ceiling > longestWait {
			ceiling = longestWait
		}
	}
}

// connection is one connection, from the login to its end, which is always an error.
func (f *follower) connection() error {
	if f.token == "" {
		if err := f.login(); err != nil {
			return err
		}
	}
	query := "after=now"
	if f.at != nil {
		query = fmt.Sprintf("epoch=%s&after=%d", url.QueryEscape(f.at.Epoch), f.at.Seq)
	}
	target := "ws" + strings.TrimPrefix(f.api, "http") + "/ws/cluster?" + query
	conn, answer, err := websocket.DefaultDialer.Dial(target, http.Header{"Authorization": {"Bearer " + f.token}})
	if err != nil {
		return f.refused(answer, err)
	}
	defer conn.Close()
	conn.SetReadLimit(largest)
	alive := func() { conn.SetReadDeadline(time.Now().Add(deadAfter)) }
	alive()
	conn.SetPingHandler(func(data string) error {
		alive()
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	resumed := f.at != nil
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return f.closed(err)
		}
		alive()
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if f.verbose {
			fmt.Printf("%s\n", text)
		} else if m.Type != "welcome" {
			show(m)
		}
		switch m.Type {
		case "welcome":
			if err := f.welcome(m, resumed); err != nil {
				return err
			}
			resumed = true
		case "status":
			var status struct {
				AsOf uint64 `json:"as_of_seq"`
			}
			if err := json.Unmarshal(m.Data, &status); err != nil {
				return err
			}
			f.moveTo(status.AsOf)
		case "token_expiring":
			if err := f.renew(conn); err != nil {
				log.Printf("the token was not renewed: %v", err)
			}
		default:
			f.moveTo(m.Seq)
		}
	}
}

// welcome says whether all that was missed follows. If not, the cursor goes to where the daemon is.
func (f *follower) welcome(m message, resumed bool) error {
	var w struct {
		Epoch     string `json:"epoch"`
		Seq       uint64 `json:"seq"`
		Recovered bool   `json:"recovered"`
		Reason    string `json:"reason"`
	}
	if err := json.Unmarshal(m.Data, &w); err != nil {
		return err
	}
	if resumed && w.Recovered {
		return nil // the replay moves the cursor
	}
	if resumed && w.Reason == "too_many" {
		done, err := f.page(w.Seq)
		if err != nil {
			return err
		}
		w.Recovered = done
	}
	if resumed && !w.Recovered {
		fmt.Printf("%s LOST           events after %d of %s: %s\n", m.Timestamp, f.at.Seq, f.at.Epoch, w.Reason)
	}
	f.at = &cursor{w.Epoch, w.Seq}
	f.save()
	return nil
}

// page fetches the events up to `until` from the history; false if they are not all to be had. Meanwhile the
// connection is not read, so what it brings comes behind them.
func (f *follower) page(until uint64) (bool, error) {
	for {
		var page struct {
			Events []json.RawMessage `json:"events"`
			More   bool              `json:"more"`
			Seq    uint64            `json:"seq"`
		}
		path := fmt.Sprintf("/api/cluster/history?epoch=%s&after=%d&limit=%d", url.QueryEscape(f.at.Epoch), f.at.Seq, historyLimit)
		status, err := f.ask("GET", path, nil, &page)
		if err != nil {
			return false, err
		}
		if status != http.StatusOK { // 403: no right to read; 410: not kept any more
			return false, nil
		}
		for _, text := range page.Events {
			var m message
			if err := json.Unmarshal(text, &m); err != nil {
				return false, err
			}
			if m.Seq > until {
				return true, nil
			}
			if f.verbose {
				fmt.Printf("%s\n", text)
			} else {
				show(m)
			}
			f.moveTo(m.Seq)
		}
		if !page.More && page.Seq < until {
			// Behind an address of several daemons another one may have answered, which has not come as far.
			return false, errors.New("the history is that of a daemon that is behind")
		}
		if !page.More {
			return true, nil
		}
	}
}

func (f *follower) moveTo(seq uint64) {
	if f.at != nil && seq > f.at.Seq {
		f.at.Seq = seq
		f.save()
	}
}

func (f *follower) save() {
	if f.file == "" {
		return
	}
	text, _ := json.Marshal(f.at)
	if err := os.WriteFile(f.file+".new", text, 0o600); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename(f.file+".new", f.file); err != nil {
		log.Fatal(err)
	}
}

func show(m message) {
	mark := ""
	if m.Provisional {
		mark = " (provisional)"
	}
	fmt.Printf("%s %-14s %s%s\n", m.Timestamp, m.Type, m.Data, mark)
}

func (f *follower) login() error {
	var session struct {
		Token string `json:"token"`
	}
	status, err := f.ask("POST", "/api/auth/login", map[string]string{"username": f.user, "password": f.pass}, &session)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w: the login was refused with %d", errEnd, status)
	}
	f.token = session.Token
	return err
}

// renew sends a newer token on the open connection. If there is none, the daemon closes it, and the next connection
// begins with a login.
func (f *follower) renew(conn *websocket.Conn) error {
	var session struct {
		Token string `json:"token"`
	}
	status, err := f.ask("POST", "/api/auth/refresh", nil, &session)
	if err == nil && status != http.StatusOK {
		err = f.login()
		session.Token = f.token
	}
	if err != nil {
		return err
	}
	f.token = session.Token
	return conn.WriteJSON(map[string]interface{}{"type": "auth", "data": map[string]string{"token": f.token}})
}

// ask makes a REST request. 429, 503 and other 5xx are errors that ask for a wait.
func (f *follower) ask(method, path string, body, into interface{}) (int, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, f.api+path, content)
	if err != nil {
		return 0, fmt.Errorf("%w: %v", errEnd, err)
	}
	if f.token != "" {
		request.Header.Set("Authorization", "Bearer "+f.token)
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500 {
		return 0, later{fmt.Errorf("%s %s: %s", method, path, answer.Status), retryAfter(answer)}
	}
	if answer.StatusCode != http.StatusOK {
		return answer.StatusCode, nil
	}
	return answer.StatusCode, json.NewDecoder(answer.Body).Decode(into)
}

// refused is what an upgrade that failed means.
func (f *follower) refused(answer *http.Response, err error) error {
	if answer == nil {
		return err
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
	said := fmt.Errorf("refused with %d: %s", answer.StatusCode, bytes.TrimSpace(text))
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		f.token = ""
		return said
	case answer.StatusCode == http.StatusServiceUnavailable:
		return later{said, retryAfter(answer)}
	case answer.StatusCode < 500:
		return fmt.Errorf("%w: %v", errEnd, said)
	}
	return said
}

// closed is what the end of a connection means, by the table of close codes.
func (f *follower) closed(err error) error {
	var end *websocket.CloseError
	if !errors.As(err, &end) {
		return err
	}
	switch end.Code {
	case 1002, 1003, 1007, 1009, 4403:
		return fmt.Errorf("%w: %v", errEnd, err)
	case 4000:
		return later{err, 5 * time.Second}
	case 4401:
		f.token = ""
	case 4429:
		return later{err, 10 * time.Second}
	}
	return err
}

func retryAfter(answer *http.Response) time.Duration {
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	return time.Duration(seconds) * time.Second
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
