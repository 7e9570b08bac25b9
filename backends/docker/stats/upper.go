package stats

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Upper returns the folder that a container writes to, by the overlay that is
// its process's root: some image stores tell nobody else. It is empty where
// the root is no overlay.
func (p *Pass) Upper(id string, pid int) (string, error) {
	if pid <= 0 {
		return "", ErrGone
	}
	b, err := p.read(p.r.root, "proc", strconv.Itoa(pid), "mountinfo")
	if gone(err) {
		return "", ErrGone
	}
	if err != nil {
		return "", fmt.Errorf("root of process %d: %w", pid, err)
	}
	dir, err := parseUpper(b)
	if err != nil {
		return "", fmt.Errorf("root of process %d: %w", pid, err)
	}
	// Afterwards: another process may have got the same id.
	if !p.owns(id, pid) {
		return "", ErrGone
	}
	return dir, nil
}

// parseUpper finds the upperdir of the root mount.
func parseUpper(b []byte) (string, error) {
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(b), mountinfo.SingleEntryFilter("/"))
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		for o := range strings.SplitSeq(m.VFSOptions, ",") {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return unescape(dir), nil
			}
		}
	}
	return "", nil
}

// unescape undoes what the kernel does to blanks: \040.
func unescape(s string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+4 > len(s) {
			out.WriteString(s)
			return out.String()
		}
		c, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			out.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		out.WriteString(s[:i])
		out.WriteByte(byte(c))
		s = s[i+4:]
	}
}

// DeviceName returns the path of a block device that is known as MAJOR:MINOR,
// or that if it has none.
func (p *Pass) DeviceName(numbers string) (string, error) { return p.device(numbers) }
