package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The logging plugin is this test's own program under the name of a plugin. It
// checks that it is called as the specification says, notes the call and gives
// the answer that its script has for it.

// script is what the plugin says to a command; nothing means the usual.
type script struct {
	// Out is printed; Exit is the exit code; Sleep, and waiting for a file
	// Until to be there, come before both.
	Out   string
	Exit  int
	Sleep time.Duration
	Until string
}

// call is one call of a logging plugin.
type call struct {
	Plugin, Command, ID, Netns, IfName, Args string
	Stdin                                    map[string]any
}

// syscall.Exit, since os.Exit takes a second with the race detector.
func init() {
	if os.Getenv("CNI_COMMAND") == "" {
		return
	}
	if err := logCall(); err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":7,"msg":%q}`, err.Error())
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// logCall is the plugin's main function.
func logCall() error {
	dir, name := filepath.Split(os.Args[0])
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	c := call{
		Plugin: name, Command: os.Getenv("CNI_COMMAND"), ID: os.Getenv("CNI_CONTAINERID"),
		Netns: os.Getenv("CNI_NETNS"), IfName: os.Getenv("CNI_IFNAME"), Args: os.Getenv("CNI_ARGS"),
	}
	if err := json.Unmarshal(in, &c.Stdin); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := c.check(); err != nil {
		return err
	}
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dir+"calls", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return c.answer(dir)
}

// check refuses a call that breaks the protocol.
func (c call) check() error {
	var bad []string
	need := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	need(os.Getenv("CNI_PATH") != "", "CNI_PATH")
	switch c.Command {
	case "ADD", "DEL":
		need(c.ID != "", "CNI_CONTAINERID")
		need(c.IfName != "", "CNI_IFNAME")
		need(c.Netns != "" || c.Command == "DEL", "CNI_NETNS")
	case "STATUS", "GC":
		need(c.ID == "" && c.Netns == "", "nothing of a container")
		need(c.Stdin["cniVersion"] == "1.1.0", "a version that has the verb")
	case "VERSION":
		return nil
	default:
		return fmt.Errorf("command %q", c.Command)
	}
	need(c.Stdin["name"] != "" && c.Stdin["cniVersion"] != "", "name and cniVersion")
	need(c.Stdin["type"] == c.Plugin, "its own configuration")
	if len(bad) > 0 {
		return fmt.Errorf("%s without %s", c.Command, strings.Join(bad, ", "))
	}
	return nil
}

// answer gives the script's answer, or the usual one.
func (c call) answer(dir string) error {
	b, err := os.ReadFile(dir + c.Plugin + "." + c.Command)
	if err == nil {
		var s script
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		time.Sleep(s.Sleep)
		for end := time.Now().Add(time.Minute); s.Until != "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(s.Until); err == nil {
				break
			}
		}
		fmt.Print(s.Out)
		syscall.Exit(s.Exit)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch c.Command {
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`)
	case "ADD":
		if prev, ok := c.Stdin["prevResult"]; ok {
			return json.NewEncoder(os.Stdout).Encode(prev)
		}
		fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":"veth0"},{"name":%q,"sandbox":%q}],
"ips":[{"version":"4","address":"10.9.0.2/24","interface":1},{"version":"6","address":"fd00:9::2/64","interface":1}]}`,
			c.Stdin["cniVersion"], c.IfName, c.Netns)
	}
	return nil
}

// logger installs the logging plugin under a name.
func (n *node) logger(t *testing.T, names ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(n.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// says sets what a logging plugin answers to a command.
func (n *node) says(t *testing.T, plugin, command string, s script) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.bin, plugin+"."+command), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// calls returns the calls of the logging plugins, but for VERSION.
func (n *node) calls(t *testing.T) []call {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.bin, "calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []call
	for line := range strings.Lines(string(b)) {
		var c call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if c.Command != "VERSION" {
			out = append(out, c)
		}
	}
	return out
}

// order is the calls as PLUGIN COMMAND.
func order(calls []call) []string {
	var out []string
	for _, c := range calls {
		out = append(out, c.Plugin+" "+c.Command)
	}
	return out
}
