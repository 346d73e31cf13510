// Runs schedules on etcd-io/raft, and prints the members' states at quiet points (tests/support/raft_differential.py).
//
// A line of standard input is one step. Between steps nothing is left: all messages are delivered and all is stored.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

const electionTicks = 200

type member struct {
	id      uint64
	node    *raft.RawNode
	storage *raft.MemoryStorage
	first   pb.ConfState // of the cluster: the log has only what changed since
	conf    pb.ConfState
	applied uint64
	alive   bool
}

// disk is a storage whose snapshot is always the newest state, as applications make one when it is asked for.
type disk struct {
	*raft.MemoryStorage
	of *member
}

func (d disk) InitialState() (pb.HardState, pb.ConfState, error) {
	state, conf, err := d.MemoryStorage.InitialState()
	if len(conf.Voters) == 0 {
		conf = d.of.first
	}
	return state, conf, err
}

func (d disk) Snapshot() (pb.Snapshot, error) {
	term, err := d.Term(d.of.applied)
	return pb.Snapshot{Metadata: pb.SnapshotMetadata{Index: d.of.applied, Term: term, ConfState: d.of.conf}}, err
}

type cluster struct {
	members map[uint64]*member
	cut     map[uint64]bool
	flight  []pb.Message
	first   pb.ConfState
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (m *member) start() {
	silent := &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)}
	snapshot, err := m.storage.Snapshot()
	must(err)
	m.applied, m.conf, m.alive = snapshot.Metadata.Index, snapshot.Metadata.ConfState, true
	if m.applied == 0 {
		m.conf = m.first
	}
	m.node, err = raft.NewRawNode(&raft.Config{
		ID: m.id, ElectionTick: electionTicks, HeartbeatTick: 1, Storage: disk{m.storage, m}, Applied: m.applied,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256, CheckQuorum: true, PreVote: true, Logger: silent,
		DisableProposalForwarding: true,
	})
	must(err)
}

func (c *cluster) add(id uint64) {
	m := &member{id: id, storage: raft.NewMemoryStorage(), first: c.first}
	m.start()
	c.members[id] = m
}

// store carries out what a member wants, and returns what it sends.
func (m *member) store() (sends []pb.Message) {
	for m.node.HasReady() {
		ready := m.node.Ready()
		if !raft.IsEmptySnap(ready.Snapshot) {
			must(m.storage.ApplySnapshot(ready.Snapshot))
			m.applied, m.conf = ready.Snapshot.Metadata.Index, ready.Snapshot.Metadata.ConfState
		}
		must(m.storage.Append(ready.Entries))
		if !raft.IsEmptyHardState(ready.HardState) {
			must(m.storage.SetHardState(ready.HardState))
		}
		for _, entry := range ready.CommittedEntries {
			m.applied = entry.Index
			if entry.Type == pb.EntryConfChange {
				var change pb.ConfChange
				must(change.Unmarshal(entry.Data))
				m.conf = *m.node.ApplyConfChange(change)
			}
		}
		sends = append(sends, ready.Messages...)
		m.node.Advance(ready)
	}
	return sends
}

func (c *cluster) ids() []uint64 {
	ids := make([]uint64, 0, len(c.members))
	for id := range c.members {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}

// settle delivers all messages, of some types only if any are named.
func (c *cluster) settle(only ...pb.MessageType) {
	for {
		for _, id := range c.ids() {
			if m := c.members[id]; m.alive {
				c.flight = append(c.flight, m.store()...)
			}
		}
		if len(c.flight) == 0 {
			return
		}
		flight := c.flight
		c.flight = nil
		for _, message := range flight {
			to, from := c.members[message.To], c.members[message.From]
			wanted := len(only) == 0
			for _, kind := range only {
				wanted = wanted || kind == message.Type
			}
			if wanted && to != nil && to.alive && c.cut[message.To] == c.cut[message.From] {
				_ = to.node.Step(message)
			} else if message.Type == pb.MsgSnap && from.alive {
				from.node.ReportSnapshot(message.To, raft.SnapshotFailure) // as a transport does
			}
		}
	}
}

// silence lets so much time pass that no leader is left, and no member hears one.
func (c *cluster) silence() {
	for _, id := range c.ids() {
		m := c.members[id]
		for tick := 0; m.alive && tick <= 2*electionTicks; tick++ {
			status := m.node.BasicStatus()
			if status.Lead == raft.None || (status.RaftState != raft.StateLeader && tick == electionTicks) {
				break
			}
			m.node.Tick()
			m.store()
		}
	}
}

func (c *cluster) change(leader uint64, kind pb.ConfChangeType, id uint64) {
	_ = c.members[leader].node.ProposeConfChange(pb.ConfChange{Type: kind, NodeID: id})
	c.settle()
}

func (c *cluster) step(words []string) {
	var ids []uint64
	for _, word := range words[1:] {
		if id, err := strconv.ParseUint(word, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	switch words[0] {
	case "start":
		c.members, c.cut, c.flight = map[uint64]*member{}, map[uint64]bool{}, nil
		c.first = pb.ConfState{Voters: ids}
		for _, id := range ids {
			c.add(id)
		}
	case "cut":
		c.cut = map[uint64]bool{}
		for _, id := range ids {
			c.cut[id] = true
		}
	case "elect":
		c.silence()
		_ = c.members[ids[0]].node.Campaign()
	case "half": // a candidate whose requests for votes are lost
		c.silence()
		_ = c.members[ids[0]].node.Campaign()
		c.settle(pb.MsgPreVote, pb.MsgPreVoteResp)
	case "beat":
		c.members[ids[0]].node.Tick()
	case "propose":
		_ = c.members[ids[0]].node.Propose([]byte(words[2]))
	case "transfer":
		c.members[ids[0]].node.TransferLeader(ids[1])
	case "crash":
		c.members[ids[0]].alive = false
	case "restart":
		c.members[ids[0]].start()
	case "compact":
		m := c.members[ids[0]]
		if _, err := m.storage.CreateSnapshot(m.applied, &m.conf, nil); err == nil {
			must(m.storage.Compact(m.applied))
		}
	case "add":
		c.add(ids[1])
		c.change(ids[0], pb.ConfChangeAddLearnerNode, ids[1])
		c.change(ids[0], pb.ConfChangeAddNode, ids[1])
	case "remove":
		c.change(ids[0], pb.ConfChangeRemoveNode, ids[1])
		delete(c.members, ids[1])
	default:
		panic(words[0])
	}
	c.settle()
}

// state is one line: of each member that is up its role, term, vote, commit index and the entries that it has.
func (c *cluster) state() string {
	var parts []string
	for _, id := range c.ids() {
		m := c.members[id]
		if !m.alive {
			continue
		}
		status := m.node.BasicStatus()
		role := map[raft.StateType]string{raft.StateLeader: "Leader", raft.StateCandidate: "Candidate"}[status.RaftState]
		if role == "" {
			role = "Follower"
		}
		first, err := m.storage.FirstIndex()
		must(err)
		last, err := m.storage.LastIndex()
		must(err)
		var log []string
		if first <= last {
			entries, err := m.storage.Entries(first, last+1, 1<<40)
			must(err)
			for _, entry := range entries {
				data := string(entry.Data)
				if entry.Type != pb.EntryNormal {
					data = "members"
				}
				log = append(log, fmt.Sprintf("%d/%d/%s", entry.Index, entry.Term, data))
			}
		}
		parts = append(parts, fmt.Sprintf("%d %s %d %d %d %d %s", id, role, status.Term, status.Vote, status.Commit, last,
			strings.Join(log, ",")))
	}
	return strings.Join(parts, ";")
}

func main() {
	c := &cluster{}
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		c.step(words)
		fmt.Fprintln(out, c.state())
	}
}
