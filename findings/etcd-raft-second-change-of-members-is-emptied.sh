#!/usr/bin/env bash
# A change of members that comes while another is pending is accepted, and committed as an empty entry.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

PATH=$PATH:/usr/local/go/bin
cd "$folder"
go mod init show >/dev/null 2>&1
go get go.etcd.io/raft/v3@v3.6.0 >/dev/null 2>&1

cat >show.go <<'GO'
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

// commitAll stores and applies what is ready until nothing is, and prints each entry that is committed.
func commitAll(node *raft.RawNode, storage *raft.MemoryStorage) {
	for node.HasReady() {
		ready := node.Ready()
		must(storage.Append(ready.Entries))
		for _, entry := range ready.CommittedEntries {
			fmt.Printf("entry %d is %v of %d bytes; ", entry.Index, entry.Type, len(entry.Data))
			if entry.Type == pb.EntryConfChange {
				var change pb.ConfChange
				must(change.Unmarshal(entry.Data))
				node.ApplyConfChange(change)
			}
		}
		node.Advance(ready)
	}
}

func main() {
	raft.SetLogger(&raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)})
	storage := raft.NewMemoryStorage()
	must(storage.ApplySnapshot(pb.Snapshot{Metadata: pb.SnapshotMetadata{
		Index: 1, Term: 1, ConfState: pb.ConfState{Voters: []uint64{1}},
	}}))
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16,
	})
	must(err)
	must(node.Campaign())
	commitAll(node, storage)
	for _, id := range []uint64{2, 3} {
		fmt.Printf("add learner %d: %v; ", id, node.ProposeConfChange(pb.ConfChange{Type: pb.ConfChangeAddLearnerNode, NodeID: id}))
	}
	commitAll(node, storage)
	fmt.Printf("learners: %v", node.Status().Config.Learners)
}
GO
output=$(go run show.go 2>"$folder/errors")

echo "version: go.etcd.io/raft/v3 $(go list -m -f '{{.Version}}' go.etcd.io/raft/v3), $(go version | cut -d' ' -f3)"
echo "behaviour: the leader replaces a change that it refuses by an empty entry and returns no error: who proposed it sees neither a refusal nor an entry that bears its change, and waits until its own deadline"
printf 'output: %s\n' "$output"

if ! [[ $output == *"add learner 2: <nil>; add learner 3: <nil>; entry 3 is EntryConfChange of "*"entry 4 is EntryNormal of 0 bytes; "* && $output == *"learners: "*2* && $output != *"learners: "*3* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
