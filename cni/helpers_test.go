package cni

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pluginDir is where Debian's containernetworking-plugins installs.
const pluginDir = "/usr/lib/cni"

var serial atomic.Int64

// node is a node's network configuration in directories of a test's own.
type node struct {
	conf, bin, cache, ipam string
	bridge                 string
	*Networks
}

// newNode returns a node without a configuration. Plugins written to bin come
// before the real ones.
func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{
		conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin"),
		cache: filepath.Join(dir, "cache"), ipam: filepath.Join(dir, "ipam"),
		bridge: fmt.Sprintf("crx%d-%d", os.Getpid()%100000, serial.Add(1)),
	}
	for _, d := range []string{n.conf, n.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if n.Networks, err = New(Config{ConfDir: n.conf, BinDirs: []string{n.bin, pluginDir}, CacheDir: n.cache}); err != nil {
		t.Fatal(err)
	}
	n.Networks.conf.audit = time.Hour // or it would pass for the watch
	return n
}

// write puts a file into the configuration directory.
func (n *node) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(n.conf, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fake installs a shell script as a plugin.
func (n *node) fake(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// reservations returns the addresses that host-local has handed out.
func (n *node) reservations(t *testing.T, network string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.ipam, network))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if strings.ContainsAny(e.Name(), ".:") && !strings.HasPrefix(e.Name(), "last_reserved") {
			out = append(out, e.Name())
		}
	}
	return out
}

// cached returns the names of the files in libcni's cache.
func (n *node) cached(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.cache, "results"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// real writes a configuration of the real bridge, host-local and portmap, and
// removes the bridge with the test.
func (n *node) real(t *testing.T, file, network string) {
	t.Helper()
	for _, p := range []string{"bridge", "host-local", "portmap"} {
		if _, err := os.Stat(filepath.Join(pluginDir, p)); err != nil {
			t.Fatalf("this test needs the plugin %s in %s: apt-get install containernetworking-plugins", p, pluginDir)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", n.bridge).Run() })
	n.write(t, file, fmt.Sprintf(`{
  "cniVersion": "0.4.0", "name": %q,
  "plugins": [
    {"type": "bridge", "bridge": %q, "isGateway": false,
     "ipam": {"type": "host-local", "dataDir": %q,
              "ranges": [[{"subnet": "10.253.7.0/24"}], [{"subnet": "fd00:253:7::/64"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": false}
  ]}`, network, n.bridge, n.ipam))
}

// newNetns makes a named network namespace and returns its path.
func newNetns(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("crimux-test-%d-%d", os.Getpid(), serial.Add(1))
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s: this test needs root and iproute2", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return "/var/run/netns/" + name
}

// links returns what ip link shows in a namespace.
func links(t *testing.T, netns string) string {
	t.Helper()
	out, err := exec.Command("ip", "-n", filepath.Base(netns), "-o", "addr").CombinedOutput()
	if err != nil {
		t.Fatalf("ip addr: %v: %s", err, out)
	}
	return string(out)
}

// id returns a sandbox id of a test's own.
func id() string {
	return fmt.Sprintf("%016x%048x", os.Getpid(), serial.Add(1))
}

// attach plans and adds.
func (n *node) attach(t *testing.T, a Attachment) (*Plan, Result) {
	t.Helper()
	p, err := n.Plan(a)
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.Add(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return p, r
}

// eventually waits up to a minute for what takes a moment on an idle machine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}
