#!/usr/bin/env bash
# A linearizable read that comes while no leader is known is dropped, and nobody is told.
set -euo pipefail

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
export GOPATH="$folder/gopath" GOFLAGS=-mod=mod

cat >"$folder/go.mod" <<'MODULE'
module shown

go 1.23

require go.etcd.io/raft/v3 v3.6.0
MODULE
cat >"$folder/main.go" <<'GO'
package main

import (
	"fmt"
	"io"
	"log"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

type member struct {
	*raft.RawNode
	storage *raft.MemoryStorage
}

// settle stores, applies and carries everything until nothing is left; it prints the reads that are answered.
func settle(members map[uint64]member) {
	for busy := true; busy; {
		busy = false
		for id, one := range members {
			if !one.HasReady() {
				continue
			}
			busy = true
			ready := one.Ready()
			must(one.storage.Append(ready.Entries))
			for _, state := range ready.ReadStates {
				fmt.Printf("; member %d: read %q is answered", id, state.RequestCtx)
			}
			for _, message := range ready.Messages {
				_ = members[message.To].Step(message)
			}
			one.Advance(ready)
		}
	}
}

func main() {
	raft.SetLogger(&raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)})
	members := map[uint64]member{}
	for id := uint64(1); id <= 3; id++ {
		storage := raft.NewMemoryStorage()
		must(storage.ApplySnapshot(pb.Snapshot{Metadata: pb.SnapshotMetadata{
			Index: 1, Term: 1, ConfState: pb.ConfState{Voters: []uint64{1, 2, 3}},
		}}))
		node, err := raft.NewRawNode(&raft.Config{
			ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16,
		})
		must(err)
		members[id] = member{node, storage}
	}
	fmt.Printf("without a leader: a proposal: %v", members[2].Propose([]byte("x")))
	read := pb.Message{Type: pb.MsgReadIndex, From: 2, Entries: []pb.Entry{{Data: []byte("first")}}}
	fmt.Printf("; a read: %v", members[2].Step(read))
	settle(members)
	must(members[1].Campaign())
	settle(members)
	fmt.Printf("; leader: %d", members[2].BasicStatus().Lead)
	members[2].ReadIndex([]byte("second"))
	settle(members)
	fmt.Println()
}
GO
(cd "$folder" && go build -o shown . 2>"$folder/build")
output=$(timeout 60 "$folder/shown")

echo "version: go.etcd.io/raft/v3 $(go version -m "$folder/shown" | awk '$2 == "go.etcd.io/raft/v3" {print $3}'), $(go version | cut -d' ' -f3)"
echo "behaviour: a follower that knows no leader refuses a proposal with an error, but drops a request for a read index without one, and does not ask later: who waits for its ReadState waits until its own deadline, also once there is a leader"
printf 'output: %s\n' "$output"

if ! [[ $output == 'without a leader: a proposal: raft proposal dropped; a read: <nil>; leader: 1; member 2: read "second" is answered' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
