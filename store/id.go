package store

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"
)

// ordered is a base32 alphabet whose characters ascend, so that ids sort as
// the numbers that they stand for.
var ordered = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewOp returns a new operation id: 26 lower-case letters and digits, of which
// the first ten are the time in milliseconds and the others are random. Ids
// sort by time.
func NewOp() string { return newOp(time.Now()) }

func newOp(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // it never fails: crypto/rand ends the program instead
	return ordered.EncodeToString(b[:])
}

// BootID returns the kernel's id of this boot of the machine.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
