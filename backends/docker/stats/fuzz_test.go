package stats

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// FuzzFields: any bytes give numbers that are in them, and no panic.
func FuzzFields(f *testing.F) {
	for _, s := range []string{memoryStatV1, memoryStatV2, "", "a", "a 1", "a  1", "a -1", "a 18446744073709551615", "a 18446744073709551616"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		eachField(b, func(name []byte, value uint64) {
			if !bytes.Contains(b, name) {
				t.Errorf("name %q", name)
			}
		})
		parseMemoryStat(b, true)
		parseMemoryStat(b, false)
		parseMaxFiles(b)
		// The two ways to read a number agree.
		n, err := parseNumber(b)
		if m, ok := digits(bytes.TrimSpace(b)); ok != (err == nil) || ok && m != n {
			t.Errorf("%q: %d %v and %d %v", b, n, err, m, ok)
		}
		if limit, err := parseLimit(b); err == nil && limit != nil && *limit >= unlimited {
			t.Errorf("limit %d", *limit)
		}
	})
}

func FuzzPressure(f *testing.F) {
	f.Add([]byte("some avg10=1.50 avg60=0.75 avg300=0.25 total=3000000\nfull avg10=NaN avg60=Inf avg300=1e400 total=99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parsePressure(b)
		if p == nil {
			return
		}
		if p.Some == nil && p.Full == nil {
			t.Error("pressure of nothing")
		}
		for _, s := range []*Stall{p.Some, p.Full} {
			if s == nil {
				continue
			}
			for _, v := range []float64{s.Avg10, s.Avg60, s.Avg300} {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Errorf("%q: %v", b, v)
				}
			}
		}
	})
}

func FuzzNetDev(f *testing.F) {
	f.Add([]byte("  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\nlo:1 2 3 4 5 6 7 8 9 10 11 12\n:1 2 3 4 5 6 7 8 9 10 11 12\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, i := range parseNetDev(b) {
			if i.Name == "" || i.Name == loopback {
				t.Errorf("interface %q", i.Name)
			}
		}
	})
}

func FuzzIO(f *testing.F) {
	f.Add([]byte("8:0 Read 4096\n8:0 Total 1\nTotal 3\n"))
	f.Add([]byte("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c ioCounts
		c.addV1(b, true)
		c.addV2(b)
		for _, io := range c {
			if io.Major+":"+io.Minor != io.Device || strings.ContainsAny(io.Device, "/ ") {
				t.Errorf("device %+v", io)
			}
		}
	})
}

func FuzzUpper(f *testing.F) {
	f.Add([]byte("100 50 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/var/lib/my\\040docker/s/9/fs,workdir=/w\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, err := parseUpper(b)
		if err != nil && dir != "" {
			t.Errorf("%q and %v", dir, err)
		}
	})
}
