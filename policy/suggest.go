package policy

import (
	"fmt"
	"strings"
)

// suggestions bounds how many names a message lists.
const suggestions = 20

// suggest returns what could have been meant by a name that is not among known:
// the nearest one, or all of them. known is not empty.
func suggest(name string, known []string) string {
	best, distance := "", 3
	if len(name) <= quoteLimit {
		for _, k := range known {
			// A name of three letters is not "nearly" another one by two edits.
			if d := edits(strings.ToLower(name), strings.ToLower(k)); d < distance && d*2 < len(k) {
				best, distance = k, d
			}
		}
	}
	if best != "" {
		return "did you mean " + plain(best) + "?"
	}
	var list strings.Builder
	for i, k := range known {
		if i == suggestions {
			fmt.Fprintf(&list, " and %d more", len(known)-i)
			break
		}
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(plain(k))
	}
	return "there are " + list.String()
}

// edits returns how many bytes must be inserted, removed or replaced to turn a
// into b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
