package stats

import (
	"bytes"
	"fmt"
	"strconv"
)

// Interface counts what a network interface has carried.
type Interface struct {
	Name   string
	Rx, Tx Traffic
}

// Traffic is one direction.
type Traffic struct{ Bytes, Packets, Errors, Dropped uint64 }

// loopback is not part of a pod's traffic.
const loopback = "lo"

// Network returns the interfaces in the network namespace of a container's
// process, but loopback. The process's own file shows them: nobody has to
// enter the namespace.
func (p *Pass) Network(id string, pid int) ([]Interface, error) {
	if pid <= 0 {
		return nil, ErrGone
	}
	b, err := p.read(p.r.root, "proc", strconv.Itoa(pid), "net/dev")
	if gone(err) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("network of process %d: %w", pid, err)
	}
	all := parseNetDev(b)
	// Afterwards, so that the numbers cannot be those of another process that
	// has got the same id.
	if !p.owns(id, pid) {
		return nil, ErrGone
	}
	return all, nil
}

// Places in a line of /proc/net/dev, after the name.
const (
	rxAt       = 0
	txAt       = 8
	netDevCols = 12
)

// parseNetDev reads /proc/PID/net/dev. Lines of another form, the heading
// among them, are passed over.
func parseNetDev(b []byte) []Interface {
	var all []Interface
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		cols := bytes.Fields(rest)
		if !ok || len(cols) < netDevCols {
			continue
		}
		i := Interface{Name: string(bytes.TrimSpace(name))}
		if i.Name == "" || i.Name == loopback || !i.Rx.set(cols[rxAt:]) || !i.Tx.set(cols[txAt:]) {
			continue
		}
		all = append(all, i)
	}
	return all
}

func (t *Traffic) set(cols [][]byte) bool {
	for i, to := range []*uint64{&t.Bytes, &t.Packets, &t.Errors, &t.Dropped} {
		n, ok := digits(cols[i])
		if !ok {
			return false
		}
		*to = n
	}
	return true
}
