package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxSocketPath is what Linux can bind and connect to (sun_path less its NUL).
const maxSocketPath = 107

// UnixPath returns the path of a unix:// address and true, or "" and false for
// an address of another kind, such as fd://.
func UnixPath(address string) (string, bool) {
	return strings.CutPrefix(address, "unix://")
}

// checkUnix tells what keeps an address from being a usable socket's; example
// is one that can be used.
func checkUnix(address, example string) error {
	socket, ok := UnixPath(address)
	if !ok || !strings.HasPrefix(socket, "/") || strings.HasSuffix(socket, "/") {
		return fmt.Errorf("%s is not an absolute unix:// path: write it like %s", quote(address), example)
	}
	if err := checkPath(socket); err != nil {
		return err
	}
	if len(socket) > maxSocketPath {
		return fmt.Errorf("the path has %d bytes, of a socket's at most %d can be used: choose a shorter one", len(socket), maxSocketPath)
	}
	return nil
}

// fdAddress is a socket that systemd passes on, by the name it was given.
var fdAddress = regexp.MustCompile(`^fd://[A-Za-z0-9._-]{0,255}$`)

// checkListen tells what keeps an address from being listened on.
func checkListen(address string) error {
	switch {
	case fdAddress.MatchString(address):
		return nil
	case !strings.HasPrefix(address, "unix://"):
		return fmt.Errorf("%s is neither unix:// nor fd://: write it like %s, or fd:// for a socket of systemd", quote(address), DefaultListen)
	}
	return checkUnix(address, DefaultListen)
}

// checkPath tells what keeps a path from being absolute and unambiguous.
func checkPath(p string) error {
	clean := path.Clean(p)
	switch {
	case strings.ContainsFunc(p, unicode.IsControl):
		return fmt.Errorf("%s has control characters: remove them", quote(p))
	case !path.IsAbs(p):
		return fmt.Errorf("%s is not an absolute path: begin it with /", quote(p))
	case p != clean && (clean == "/" || p != clean+"/"):
		return fmt.Errorf("%s is not in its shortest form: write %s", quote(p), quote(clean))
	}
	return nil
}

// sameSocket tells whether two addresses are the same socket by name.
func sameSocket(a, b string) bool { return realSocket(a) == realSocket(b) }

// realSocket resolves the one link that every distribution has.
func realSocket(address string) string {
	if rest, ok := strings.CutPrefix(address, "unix:///var/run/"); ok {
		return "unix:///run/" + rest
	}
	return address
}

// checkStream tells what keeps host:port from being where streams are served.
// They carry exec sessions without authentication of their own, so nothing but
// this machine may reach them.
func checkStream(address string) error {
	at, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not an IP address and port: write it like %s", quote(address), DefaultStreamListen)
	case !at.Addr().IsLoopback():
		return fmt.Errorf("%s is not a loopback address: exec streams must not be reachable from outside; write it like %s", quote(address), DefaultStreamListen)
	}
	return nil
}

// logSize is a size as the Engine's max-size option takes it.
var logSize = regexp.MustCompile(`^([1-9][0-9]{0,12})([kmg]?)$`)

// parseSize reads a number of bytes, or one of k, m or g bytes.
func parseSize(size string) (int64, error) {
	parts := logSize.FindStringSubmatch(size)
	if parts == nil {
		return 0, fmt.Errorf("%s is not a size: write a number of bytes or of k, m or g, like %s", quote(size), DefaultLogMaxSize)
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size: %w", quote(size), err)
	}
	unit := map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[parts[2]]
	if n > maxLogSize/unit { // first, since otherwise the product could overflow
		return 0, errHugeSize
	}
	return n * unit, nil
}

var errHugeSize = errors.New("is more than 1024g")

// checkLogSize tells what keeps a value from being the size of a log file.
func checkLogSize(size string) error {
	n, err := parseSize(size)
	switch {
	case errors.Is(err, errHugeSize):
		return fmt.Errorf("%s per log file fills any disk: write at most 1024g", quote(size))
	case err != nil:
		return err
	case n < minLogSize:
		return fmt.Errorf("%s is too small: rotation would outrun the reader; write at least 16k", quote(size))
	}
	return nil
}

// The bounds of the event log: it should hold some hours of a busy node, and
// is read as a whole at times.
const (
	minEventsSize = 16 << 20
	maxEventsSize = 16 << 30
	minRetention  = time.Minute
	maxRetention  = 10 * 365 * 24 * time.Hour
)

// checkEventLog looks at the bounds of the event log.
func (r *reader) checkEventLog(l EventLog) {
	n, err := parseSize(l.MaxSize)
	switch {
	case errors.Is(err, errHugeSize) || err == nil && n > maxEventsSize:
		err = fmt.Errorf("%s is too large for an event log: write at most 16g", quote(l.MaxSize))
	case err == nil && n < minEventsSize:
		err = fmt.Errorf("%s is too small for the events of a busy hour: write at least 16m", quote(l.MaxSize))
	}
	r.checkValue("log", "maxSize", err)
	switch {
	case l.Retention < minRetention:
		r.checkValue("log", "retention", fmt.Errorf("%s is too short to tell anything by: write at least %s", l.Retention, minRetention))
	case l.Retention > maxRetention:
		r.checkValue("log", "retention", fmt.Errorf("%s is more than ten years: write at most %s; log.maxSize bounds the log in any case", l.Retention, maxRetention))
	}
}

// The bounds of a log file: a log line can have 16 KiB, and a file should hold
// one.
const (
	minLogSize = 16 << 10
	maxLogSize = 1 << 40
)
