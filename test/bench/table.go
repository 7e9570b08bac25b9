package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// way is one of the ways in which a call is made.
type way struct {
	name string
	call func() error
}

// row is the times of one call made in each way.
type row struct {
	call  string
	times [][]time.Duration
}

// interleave makes each way's call in turn, n times.
func interleave(call string, n int, ways ...way) (row, error) {
	r := row{call: call, times: make([][]time.Duration, len(ways))}
	for i := range n {
		for j := range ways {
			// The first of a round changes, so that none always comes after
			// the same other.
			k := (i + j) % len(ways)
			began := time.Now()
			if err := ways[k].call(); err != nil {
				return r, fmt.Errorf("%s, %s: %w", call, ways[k].name, err)
			}
			r.times[k] = append(r.times[k], time.Since(began))
		}
	}
	return r, nil
}

func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// print writes the rows of two ways, the base first.
func print(w io.Writer, title, base, through string, rows []row) error {
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "call\tn\t%s p50\tp99\t%s p50\tp99\tratio p50\tadded p50\t\n", base, through)
	for _, r := range rows {
		a, b := r.times[0], r.times[1]
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%.2f\t%s\t\n", r.call, len(b),
			ms(quantile(a, .5)), ms(quantile(a, .99)), ms(quantile(b, .5)), ms(quantile(b, .99)),
			float64(quantile(b, .5))/float64(quantile(a, .5)), ms(quantile(b, .5)-quantile(a, .5)))
	}
	return t.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }
