package cni

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const good = `{"cniVersion":"0.4.0","name":"good","plugins":[{"type":"bridge"}]}`

func TestStatusSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string // parts of the error; none means usable
	}{
		"nothing":           {nil, []string{"no configuration", "install a network add-on"}},
		"other files":       {map[string]string{"README": "x", "a.conf.bak": good, ".conflist.swp": good}, []string{"no configuration"}},
		"good":              {map[string]string{"10-a.conflist": good}, nil},
		"old form":          {map[string]string{"10-a.conf": `{"cniVersion":"0.4.0","name":"x","type":"bridge"}`}, nil},
		"old form, json":    {map[string]string{"10-a.json": `{"cniVersion":"0.4.0","name":"x","type":"bridge"}`}, nil},
		"no version":        {map[string]string{"10-a.conflist": `{"name":"x","plugins":[{"type":"bridge"}]}`}, nil},
		"several versions":  {map[string]string{"10-a.conflist": `{"cniVersions":["0.4.0","99.0.0"],"name":"x","plugins":[{"type":"bridge"}]}`}, nil},
		"half written":      {map[string]string{"10-a.conflist": good[:20]}, []string{"10-a.conflist", "correct or remove"}},
		"empty":             {map[string]string{"10-a.conflist": ""}, []string{"10-a.conflist"}},
		"no plugins":        {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","name":"x","plugins":[]}`}, []string{"no plugins"}},
		"no plugins at all": {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","name":"x"}`}, []string{"no plugins"}},
		"no name":           {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","plugins":[{"type":"bridge"}]}`}, []string{"no name"}},
		"name of a path":    {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","name":"../x","plugins":[{"type":"bridge"}]}`}, []string{"invalid characters"}},
		"too new":           {map[string]string{"10-a.conflist": `{"cniVersion":"99.0.0","name":"x","plugins":[{"type":"bridge"}]}`}, []string{"99.0.0"}},
		"version of words":  {map[string]string{"10-a.conflist": `{"cniVersion":"new","name":"x","plugins":[{"type":"bridge"}]}`}, []string{`"new"`}},
		"no such plugin":    {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","name":"x","plugins":[{"type":"bridge"},{"type":"nowhere"}]}`}, []string{`plugin "nowhere" not found in`, pluginDir, "10-a.conflist"}},
		"plugin of a path":  {map[string]string{"10-a.conflist": `{"cniVersion":"0.4.0","name":"x","plugins":[{"type":"../lib/cni/bridge"}]}`}, []string{"not the name of a plugin"}},
		"two damaged":       {map[string]string{"10-a.conflist": "{", "20-b.conf": "{"}, []string{"10-a.conflist", "20-b.conf"}},
		"huge":              {map[string]string{"10-a.conflist": `{"name":"` + strings.Repeat("x", maxConf) + `"}`}, []string{"at most"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			for f, content := range c.files {
				n.write(t, f, content)
			}
			err := n.Status(t.Context())
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("Status: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrNoNetwork) {
				t.Fatalf("Status: %v, want ErrNoNetwork", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is of several lines", err)
			}
			if _, planErr := n.Plan(Attachment{ID: "x"}); !errors.Is(planErr, ErrNoNetwork) {
				t.Errorf("Plan: %v", planErr)
			}
		})
	}
}

func TestStatusWithoutDirectory(t *testing.T) {
	n := newNode(t)
	if err := os.Remove(n.conf); err != nil {
		t.Fatal(err)
	}
	if err := n.Status(t.Context()); !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), n.conf) {
		t.Errorf("Status: %v", err)
	}
	n.write(t, "a.conflist", good)
	if err := n.Status(t.Context()); err != nil {
		t.Errorf("when it has come: %v", err)
	}
}

// TestFirstValidByName: damaged files are named and passed over.
func TestFirstValidByName(t *testing.T) {
	n := newNode(t)
	n.write(t, "00-damaged.conflist", "{")
	n.write(t, "30-late.conflist", strings.ReplaceAll(good, "good", "late"))
	n.write(t, "20-first.conf", `{"cniVersion":"0.4.0","name":"first","type":"bridge"}`)
	if err := os.Mkdir(filepath.Join(n.conf, "10-folder.conflist"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := n.Plan(Attachment{ID: "x"})
	if err != nil || p.Network() != "first" {
		t.Fatalf("Plan: %v, %v", p, err)
	}
	skipped := n.Skipped()
	if len(skipped) != 1 || !strings.Contains(skipped[0].Error(), "00-damaged.conflist") {
		t.Errorf("skipped %v", skipped)
	}
}

// TestChangesAreSeen: every kind of change is seen at the next use, and a
// directory that did not change is not read again.
func TestChangesAreSeen(t *testing.T) {
	n := newNode(t)
	network := func() string {
		p, err := n.Plan(Attachment{ID: "x"})
		if err != nil {
			return err.Error()
		}
		return p.Network()
	}
	step := func(want string) {
		t.Helper()
		if got := network(); got != want {
			t.Errorf("network %q, want %q", got, want)
		}
		before := n.networks()
		if network(); n.networks() != before {
			t.Error("read again without a change")
		}
	}
	n.write(t, "20.conflist", good)
	step("good")
	n.write(t, "10.conflist", strings.ReplaceAll(good, "good", "less"))
	step("less")
	n.write(t, "10.conflist", strings.ReplaceAll(good, "good", "news")) // same size
	step("news")
	old := time.Now().Add(-time.Hour)
	if err := os.WriteFile(filepath.Join(n.conf, "10.conflist.new"), []byte(strings.ReplaceAll(good, "good", "swap")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(n.conf, "10.conflist.new"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(n.conf, "10.conflist.new"), filepath.Join(n.conf, "10.conflist")); err != nil {
		t.Fatal(err)
	}
	step("swap")
	if err := os.Remove(filepath.Join(n.conf, "10.conflist")); err != nil {
		t.Fatal(err)
	}
	step("good")
}

// networks returns what the loader holds, to compare by identity.
func (n *node) networks() any { return n.Networks.conf.now.list }

// TestPluginFolder: CNI 1.1 lets plugins lie in a folder of the network's
// name. The plan must hold them, since a DEL has only the plan.
func TestPluginFolder(t *testing.T) {
	n := newNode(t)
	n.write(t, "10.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge","n":9007199254740993}]}`)
	n.write(t, "x/10-more.conf", `{"type":"portmap"}`)
	p, err := n.Plan(Attachment{ID: "y"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParsePlan(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(back.list.Plugins) != 2 || back.list.Plugins[0].Network.Type != "bridge" || back.list.Plugins[1].Network.Type != "portmap" {
		t.Errorf("plugins of %s", b)
	}
	n.write(t, "x/20-more.conf", `{"type":"tuning"}`)
	if p, err = n.Plan(Attachment{ID: "y"}); err != nil || len(p.list.Plugins) != 3 {
		t.Errorf("a file added to the folder is not seen: %v", err)
	}
	n.write(t, "10.conflist", `{"cniVersion":"1.0.0","name":"x","loadOnlyInlinedPlugins":true,"plugins":[{"type":"bridge"}]}`)
	if p, err = n.Plan(Attachment{ID: "y"}); err != nil || len(p.list.Plugins) != 1 {
		t.Errorf("loadOnlyInlinedPlugins is not honoured: %v", err)
	}
}

func TestNewRefusesRelativePaths(t *testing.T) {
	for _, c := range []Config{
		{ConfDir: "net.d", BinDirs: []string{"/b"}, CacheDir: "/c"},
		{ConfDir: "/net.d", BinDirs: []string{"/b", "b"}, CacheDir: "/c"},
		{ConfDir: "/net.d", BinDirs: []string{"/b"}, CacheDir: ""},
		{ConfDir: "/net.d", CacheDir: "/c"},
	} {
		if _, err := New(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add(".conflist", []byte(good))
	f.Add(".conf", []byte(`{"cniVersion":"0.4.0","name":"x","type":"bridge"}`))
	f.Add(".json", []byte(`null`))
	f.Add(".conflist", []byte(`{"cniVersions":["1"],"name":"x","plugins":[{"type":"a","capabilities":{"x":true}}]}`))
	f.Fuzz(func(t *testing.T, ext string, b []byte) {
		list, err := parseSingle(b)
		if ext == ".conflist" {
			list, err = parseList(b, "")
		}
		if err != nil {
			return
		}
		// What is usable can be pinned, stored and read back.
		p, err := newPlan(list, Attachment{ID: "x"})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePlan(stored); err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
	})
}
