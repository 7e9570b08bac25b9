package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestModeAndRemoval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "s.sock")
	l, err := Listen("unix://"+path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket is %v, %v", fi.Mode(), err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("closing leaves %v, %v", left, err)
	}
}

func TestALiveSocketIsNotStolen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen("unix://"+path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var used *InUseError
	_, err = Listen("unix://"+path, 0o600)
	if !errors.As(err, &used) || used.PID != os.Getpid() || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first listener: %v", err)
	}
}

func TestADeadSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen("unix://"+path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"unix://" + file:      "not a socket",
		"unix://relative":     "neither",
		"tcp://127.0.0.1:1":   "neither",
		"fd://":               "systemd passed on 0",
		"fd://name-not-there": "fd://name-not-there",
	} {
		if _, err := Listen(address, 0o600); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%q): %v, want %q", address, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("a file in the way became %q, %v", b, err)
	}
}

// TestOneOfManyWins: of daemons that start at once where a dead socket is left,
// one listens, and is reached.
func TestOneOfManyWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	for range 200 {
		leaveDead(t, path)
		won := make(chan net.Listener, 4)
		var wg sync.WaitGroup
		for range cap(won) {
			wg.Go(func() {
				l, err := Listen("unix://"+path, 0o600)
				if err == nil {
					won <- l
				}
			})
		}
		wg.Wait()
		close(won)
		if len(won) != 1 {
			t.Fatalf("%d listen", len(won))
		}
		l := <-won
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheNextDaemonsSocketStays: one that ends does not remove the socket of the
// one that began just when it had stopped to listen.
func TestTheNextDaemonsSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen("unix://"+path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ending := l.(*listener)
	if err := ending.UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Listen("unix://"+path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := ending.remove(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody reaches the next one: %v", err)
	}
	c.Close()
}

// leaveDead leaves a socket that nobody listens on.
func leaveDead(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
