package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// way is one of the ways in which a call is made; call is nil where there is
// none.
type way struct {
	name string
	call func() error
}

// row is the times of one call made in each way, by the way's name.
type row struct {
	call  string
	times map[string][]time.Duration
}

func newRow(call string) row { return row{call: call, times: map[string][]time.Duration{}} }

func (r row) add(way string, took time.Duration) { r.times[way] = append(r.times[way], took) }

// interleave makes each way's call in turn, n times. Where one call takes
// long, half a minute has to do.
func interleave(call string, n int, ways ...way) (row, error) {
	r := newRow(call)
	began := time.Now()
	for i := range n {
		if i >= 5 && time.Since(began) > 30*time.Second {
			break
		}
		for j := range ways {
			// The first of a round changes, so that none always comes after
			// the same other.
			w := ways[(i+j)%len(ways)]
			if w.call == nil {
				continue
			}
			began := time.Now()
			if err := w.call(); err != nil {
				return r, fmt.Errorf("%s, %s: %w", call, w.name, err)
			}
			r.add(w.name, time.Since(began))
		}
	}
	return r, nil
}

func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// print writes the rows: each way's median and p99, and how the last way's
// median compares with those of the others.
func print(w io.Writer, title string, ways []string, rows []row) error {
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	us := ways[len(ways)-1]
	fmt.Fprint(t, "call\tn\t")
	for _, name := range ways {
		fmt.Fprintf(t, "%s p50\tp99\t", name)
	}
	for _, name := range ways[:len(ways)-1] {
		fmt.Fprintf(t, "%s/%s\tadded\t", us, name)
	}
	fmt.Fprintln(t)
	for _, r := range rows {
		ours := quantile(r.times[us], .5)
		fmt.Fprintf(t, "%s\t%d\t", r.call, len(r.times[us]))
		for _, name := range ways {
			if len(r.times[name]) == 0 {
				fmt.Fprint(t, "-\t-\t")
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t", ms(quantile(r.times[name], .5)), ms(quantile(r.times[name], .99)))
		}
		for _, name := range ways[:len(ways)-1] {
			if len(r.times[name]) == 0 {
				fmt.Fprint(t, "-\t-\t")
				continue
			}
			theirs := quantile(r.times[name], .5)
			fmt.Fprintf(t, "%.2f\t%s\t", float64(ours)/float64(theirs), ms(ours-theirs))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }
