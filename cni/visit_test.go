package cni

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// mainCalls are carried out on the main thread.
var mainCalls = make(chan func())

// TestMain keeps the main thread for tests that send it into another
// namespace, which is what happens to it when the runtime runs a goroutine on
// it that does so.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	code := make(chan int)
	go func() { code <- m.Run() }()
	for {
		select {
		case call := <-mainCalls:
			call()
		case c := <-code:
			os.Exit(c)
		}
	}
}

// onMain runs fn on the main thread and returns what it did.
func onMain(fn func() error) error {
	err := make(chan error)
	mainCalls <- func() { err <- fn() }
	return <-err
}

// TestDelWhileTheMainThreadIsInThePod: /proc/self is the main thread's, and a
// DEL that took the pod's namespace for the host's would leave the pod's link
// and NAT rules behind.
func TestDelWhileTheMainThreadIsInThePod(t *testing.T) {
	n, _ := planned(t, answer)
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	path := newNetns(t)
	p, err := n.Plan(Attachment{ID: id(), Netns: path, PodNamespace: "ns", PodName: "web-0", PodUID: "u-1"})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	enter := func(f *os.File) func() error {
		return func() error { return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET) }
	}
	if err := onMain(enter(ns)); err != nil {
		t.Fatal(err)
	}
	fresh := p.leadsHome(path, n.host)
	later, err := New(Config{ConfDir: t.TempDir(), BinDirs: []string{n.bin}, CacheDir: t.TempDir()})
	if err := onMain(enter(home)); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !fresh || later.host != n.host {
		t.Errorf("the pod's namespace passes for the host's: %v; the host's is %d, then %d", !fresh, n.host, later.host)
	}
}
