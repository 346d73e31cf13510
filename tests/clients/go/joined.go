package main

import (
	"bufio"
	"net"
)

// joined reads first what came with the answer to the upgrade.
type joined struct {
	net.Conn
	buffered *bufio.Reader
}

func (j *joined) Read(into []byte) (int, error) {
	if j.buffered != nil && j.buffered.Buffered() > 0 {
		return j.buffered.Read(into)
	}
	return j.Conn.Read(into)
}
