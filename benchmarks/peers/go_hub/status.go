package main

import (
	"encoding/json"
	"log"
	"strings"
	"time"
)

// Message is what every client gets. Its status says what heliosd's says, field by field, with figures of the same
// length: what WriteJSON costs depends on what there is to encode.
type Message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      *Status   `json:"data"`
}

type Status struct {
	NodeID       string       `json:"node_id"`
	State        string       `json:"state"`
	Term         uint64       `json:"term"`
	CommitIndex  uint64       `json:"commit_index"`
	LastApplied  uint64       `json:"last_applied"`
	Leader       string       `json:"leader"`
	Peers        []string     `json:"peers"`
	SnapshotLast uint64       `json:"snapshot_last"`
	Uptime       string       `json:"uptime"`
	Clients      int          `json:"clients"`
	PeerDetails  []PeerDetail `json:"peer_details"`
	Health       Health       `json:"cluster_health"`
	ObservedBy   string       `json:"observed_by"`
	ObservedAt   time.Time    `json:"observed_at"`
	Stale        bool         `json:"stale"`
	Padding      string       `json:"padding,omitempty"`
}

type PeerDetail struct {
	ID      string  `json:"id"`
	Address string  `json:"address"`
	Latency Latency `json:"latency"`
}

type Latency struct {
	Avg               float64 `json:"avg_latency_ms"`
	Min               float64 `json:"min_latency_ms"`
	Max               float64 `json:"max_latency_ms"`
	P50               float64 `json:"p50_latency_ms"`
	P90               float64 `json:"p90_latency_ms"`
	P99               float64 `json:"p99_latency_ms"`
	Last              float64 `json:"last_latency_ms"`
	SampleCount       int     `json:"sample_count"`
	ErrorCount        int     `json:"error_count"`
	ErrorRate         float64 `json:"error_rate"`
	LastContact       int64   `json:"last_contact_unix"`
	Reachable         bool    `json:"reachable"`
	ConnectionHealthy bool    `json:"connection_healthy"`
	ConsecutiveErrors int     `json:"consecutive_errors"`
}

type Health struct {
	HealthyPeers   int     `json:"healthy_peers"`
	UnhealthyPeers int     `json:"unhealthy_peers"`
	TotalPeers     int     `json:"total_peers"`
	AvgLatency     float64 `json:"avg_cluster_latency_ms"`
	MaxLatency     float64 `json:"max_cluster_latency_ms"`
	ErrorRate      float64 `json:"cluster_error_rate"`
}

// statusOfSize returns a status whose message is `size` bytes of JSON, give or take the digits of its timestamp. What
// the fields leave of that is one long string, the cheapest thing to encode; a smaller size is not to be had.
func statusOfSize(size int) *Status {
	at := time.Unix(1700000000, 123456000).UTC()
	latency := Latency{
		Avg: 1.423, Min: 1.251, Max: 1.672, P50: 1.346, P90: 1.672, P99: 1.672, Last: 1.346,
		SampleCount: 3, LastContact: at.Unix(), Reachable: true, ConnectionHealthy: true,
	}
	status := &Status{
		NodeID: "node-1", State: "Follower", Term: 2, CommitIndex: 2, LastApplied: 2, Leader: "node-3",
		Peers: []string{"node-2", "node-3"}, Uptime: "3s", Clients: 1000,
		PeerDetails: []PeerDetail{
			{ID: "node-2", Address: "127.0.0.1:7001", Latency: latency},
			{ID: "node-3", Address: "127.0.0.1:7002", Latency: latency},
		},
		Health:     Health{HealthyPeers: 2, TotalPeers: 2, AvgLatency: 1.491, MaxLatency: 1.672},
		ObservedBy: "node-1", ObservedAt: at,
	}
	bare, err := json.Marshal(Message{Type: "status_update", Timestamp: at, Data: status})
	if err != nil {
		log.Fatal(err)
	}
	if room := size - len(bare) - len(`,"padding":""`); room > 0 {
		status.Padding = strings.Repeat("x", room)
	}
	return status
}
