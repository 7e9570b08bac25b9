package stats

import (
	"bytes"
	"math"
	"strconv"
	"time"
)

// Pressure is for how long tasks had to wait for something (PSI).
type Pressure struct {
	// Some is while at least one task waited, Full while all did. Full is nil
	// where the kernel does not know it.
	Some, Full *Stall
}

// Stall is one line of a pressure file.
type Stall struct {
	// Total is the sum, in nanoseconds.
	Total uint64
	// Percentages of the last 10, 60 and 300 seconds.
	Avg10, Avg60, Avg300 float64
}

// pressure reads a pressure file; nil where the kernel keeps none.
func (p *Pass) pressure(h *home, file string) (*Pressure, error) {
	if h.v2 == "" {
		return nil, nil
	}
	b, err := p.optional(h.v2, file)
	if err != nil || b == nil {
		return nil, err
	}
	return parsePressure(b), nil
}

// parsePressure reads lines such as
// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", in microseconds.
func parsePressure(b []byte) *Pressure {
	var p Pressure
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		var s Stall
		for _, f := range fields[1:] {
			s.set(f)
		}
		switch string(fields[0]) {
		case "some":
			p.Some = &s
		case "full":
			p.Full = &s
		}
	}
	if p == (Pressure{}) {
		return nil
	}
	return &p
}

func (s *Stall) set(field []byte) {
	name, value, _ := bytes.Cut(field, []byte("="))
	if string(name) == "total" {
		if us, ok := digits(value); ok {
			s.Total = multiply(us, uint64(time.Microsecond))
		}
		return
	}
	percent, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.IsNaN(percent) || math.IsInf(percent, 0) {
		return
	}
	switch string(name) {
	case "avg10":
		s.Avg10 = percent
	case "avg60":
		s.Avg60 = percent
	case "avg300":
		s.Avg300 = percent
	}
}
