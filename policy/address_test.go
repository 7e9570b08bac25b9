package policy

import (
	"strings"
	"testing"
)

// verdicts checks a function that accepts some inputs and refuses others.
func verdicts(t *testing.T, check func(string) error, good, bad []string) {
	t.Helper()
	for _, in := range good {
		if err := check(in); err != nil {
			t.Errorf("%s is refused: %v", quote(in), err)
		}
	}
	for _, in := range bad {
		if err := check(in); err == nil {
			t.Errorf("%s is accepted", quote(in))
		}
	}
}

func TestCheckUnix(t *testing.T) {
	verdicts(t,
		func(s string) error { return checkUnix(s, DefaultListen) },
		[]string{
			"unix:///a",
			"unix:///run/containerd/containerd.sock",
			"unix:///run/with space.sock",
			"unix:///run/käse.sock",
			"unix:///" + strings.Repeat("x", maxSocketPath-1),
		},
		[]string{
			"", "unix", "unix:", "unix:/", "unix:/run/a", "unix://", "unix:///", "unix:////",
			"unix://a", "unix://./a", "unix:///a/", "unix:////a", "unix:///a/../b", "unix:///a/.",
			"UNIX:///a", " unix:///a", "unix-abstract:///a", "npipe:////./pipe/a", "/run/a", "@a",
			"unix:///a\n", "unix:///a\x00", "fd://",
			"unix:///" + strings.Repeat("x", maxSocketPath),
		})
}

func TestCheckListen(t *testing.T) {
	verdicts(t, checkListen,
		[]string{"unix:///run/a.sock", "fd://", "fd://crimux.socket", "fd://3"},
		[]string{"", "fd:", "fd:/", "fd:///run/a", "fd:// ", "fd://a b", "fd://ä", "fd://" + strings.Repeat("x", 256), "tcp://127.0.0.1:1", "unix://a"})
}

func TestCheckPath(t *testing.T) {
	verdicts(t, checkPath,
		[]string{"/", "/a", "/a/", "/a/b.c/d e", "/..a", "/..."},
		[]string{"", ".", "a", "./a", "~/a", "//", "//a", "/a//", "/a/../b", "/a/.", "/..", "/a\tb", "/a\x7f"})
}

func TestCheckStream(t *testing.T) {
	verdicts(t, checkStream,
		[]string{"127.0.0.1:0", "127.0.0.1:65535", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"},
		[]string{"", ":0", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:0", "[::1]", "localhost:0",
			"0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[fe80::1%lo]:0", "169.254.0.1:1", "http://127.0.0.1:0"})
}

func TestCheckLogSize(t *testing.T) {
	verdicts(t, checkLogSize,
		[]string{"16384", "16k", "50m", "1g", "1024g", "1099511627776"},
		[]string{"", "0", "-1", "k", "m50", "050m", "5.5m", "50M", "50mb", "50Mi", "50 m", "16383", "15k", "1025g", "1099511627777",
			"999999999999g", "99999999999999999999", "1e9", "50m\n"})
}

func TestCheckImage(t *testing.T) {
	verdicts(t, checkImage,
		[]string{"pause", "registry.k8s.io/pause:3.10", "localhost:5000/a/b@sha256:00", "[::1]:5000/pause"},
		[]string{"", " ", "a b", "a\n", "a\x00b", strings.Repeat("x", 513)})
}

func TestCheckBackendHandler(t *testing.T) {
	verdicts(t, checkBackendHandler,
		[]string{"", "runc", "io.containerd.runc.v2", "kata_QEMU", strings.Repeat("x", 253)},
		[]string{" ", "a b", "a\n", "\x00", strings.Repeat("x", 254)})
}

func TestSameSocket(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"unix:///run/a", "unix:///run/a", true},
		{"unix:///run/a", "unix:///var/run/a", true},
		{"unix:///var/run/a", "unix:///run/a", true},
		{"unix:///run/a", "unix:///run/b", false},
		{"unix:///var/runa", "unix:///runa", false},
		{"fd://", "fd://", true},
		{"fd://a", "fd://b", false},
	} {
		if got := sameSocket(c.a, c.b); got != c.want {
			t.Errorf("%s, %s: %v", c.a, c.b, got)
		}
	}
}
