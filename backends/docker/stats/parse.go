package stats

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// unlimited is the least that stands for no limit in cgroup v1, which rounds
// the greatest number down to whole pages.
const unlimited = 1 << 62

// parseNumber reads a number, as files with only that have it.
func parseNumber(b []byte) (uint64, error) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cgroup: number: %w", err)
	}
	return n, nil
}

// parseLimit reads a number for which "max" or a huge one stands for none.
func parseLimit(b []byte) (*uint64, error) {
	b = bytes.TrimSpace(b)
	if string(b) == "max" {
		return nil, nil
	}
	n, err := parseNumber(b)
	if err != nil || n >= unlimited {
		return nil, err
	}
	return &n, nil
}

// eachField goes through lines of a name and a number, such as memory.stat's.
// Lines of another form are passed over: kernels add to these files.
func eachField(b []byte, do func(name []byte, value uint64)) {
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if !ok {
			continue
		}
		if value, ok := digits(rest); ok {
			do(name, value)
		}
	}
}

// digits is ParseUint for what comes by the thousand: it allocates nothing.
func digits(b []byte) (n uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// multiply is a*b, or the greatest number where that is more.
func multiply(a, b uint64) uint64 {
	if b != 0 && a > math.MaxUint64/b {
		return math.MaxUint64
	}
	return a * b
}

// less is a-b, and never below 0.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
