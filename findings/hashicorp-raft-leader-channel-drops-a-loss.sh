#!/usr/bin/env bash
# A leadership that was lost and won again reaches a reader that was busy as if nothing had been lost.
set -euo pipefail

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
export GOPATH="$folder/gopath" GOFLAGS=-mod=mod

cat >"$folder/go.mod" <<'MODULE'
module shown

go 1.21

require github.com/hashicorp/raft v1.7.3
MODULE
cat >"$folder/main.go" <<'GO'
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"
)

type nothing struct{}

func (nothing) Apply(*raft.Log) interface{}         { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (nothing) Restore(io.ReadCloser) error         { return nil }

func main() {
	names := []string{"a", "b", "c"}
	transports := map[string]*raft.InmemTransport{}
	var servers []raft.Server
	for _, name := range names {
		address, transport := raft.NewInmemTransport(raft.ServerAddress(name))
		transports[name] = transport
		servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: address})
	}
	connect := func(a, b string) {
		transports[a].Connect(raft.ServerAddress(b), transports[b])
		transports[b].Connect(raft.ServerAddress(a), transports[a])
	}
	for place, one := range names {
		for _, other := range names[place+1:] {
			connect(one, other)
		}
	}
	members := map[string]*raft.Raft{}
	for _, name := range names {
		config := raft.DefaultConfig()
		config.LocalID = raft.ServerID(name)
		config.LogOutput = io.Discard
		if name != "a" { // so that it is always a that stands for election first
			config.HeartbeatTimeout, config.ElectionTimeout = 5*time.Second, 5*time.Second
		}
		store := raft.NewInmemStore()
		member, err := raft.NewRaft(config, nothing{}, store, store, raft.NewInmemSnapshotStore(), transports[name])
		if err != nil {
			panic(err)
		}
		members[name] = member
	}
	members["a"].BootstrapCluster(raft.Configuration{Servers: servers})

	a := members["a"]
	await := func(state raft.RaftState) {
		for deadline := time.Now().Add(30 * time.Second); a.State() != state; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				fmt.Println("a did not become", state)
				os.Exit(1)
			}
		}
	}
	await(raft.Leader)
	first := <-a.LeaderCh()
	await(raft.Leader)
	before := a.CurrentTerm()
	// Nobody takes anything from the channel now.
	transports["a"].DisconnectAll()
	await(raft.Follower)
	connect("a", "b")
	connect("a", "c")
	await(raft.Leader)
	time.Sleep(200 * time.Millisecond)
	fmt.Printf("the channel said %v; a was follower and is leader in a later term: %v; then the channel said", first, a.CurrentTerm() > before)
	for {
		select {
		case said := <-a.LeaderCh():
			fmt.Printf(" %v", said)
			continue
		case <-time.After(300 * time.Millisecond):
		}
		break
	}
	fmt.Println(" and nothing else")
}
GO
(cd "$folder" && go build -o shown . 2>"$folder/build")
output=$(timeout 60 "$folder/shown")

echo "version: hashicorp/raft $(go version -m "$folder/shown" | awk '$2 == "github.com/hashicorp/raft" {print $3}'), $(go version | cut -d' ' -f3)"
echo "behaviour: LeaderCh has room for one value, and a new one replaces the one that waits: a reader that was busy while its member lost and won the leadership receives true twice in a row, and never the false between them"
printf 'output: %s\n' "$output"

if ! [[ $output == "the channel said true; a was follower and is leader in a later term: true; then the channel said true and nothing else" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
