package policy

import "strconv"

// quoteLimit bounds how much of an input a message repeats.
const quoteLimit = 80

// quote returns s as %q does, cut to a length that fits into a message.
func quote(s string) string {
	if len(s) <= quoteLimit {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:quoteLimit]) + "…"
}
