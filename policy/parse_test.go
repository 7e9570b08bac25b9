package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// invalidCase is a configuration and everything that is said about it.
type invalidCase struct{ name, text, want string }

// runInvalid checks the messages of each case, word for word.
func runInvalid(t *testing.T, cases []invalidCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config, err := Parse("config.yaml", []byte(c.text))
			if err == nil {
				t.Fatal("is accepted")
			}
			if config != nil {
				t.Error("there is a configuration besides the error")
			}
			if got := err.Error(); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
			var invalid *InvalidError
			if !errors.As(err, &invalid) || len(invalid.Problems) != strings.Count(c.want, "\n")+1 {
				t.Errorf("not one problem per line: %#v", err)
			}
		})
	}
}

func TestParseNotOneDocument(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"empty", "", "config.yaml: is empty: at least apiVersion, kind, backends and default are needed"},
		{"comment", "# nothing\n", "config.yaml: is empty: at least apiVersion, kind, backends and default are needed"},
		{"null", "~\n", "config.yaml:1: has no value: give it one or remove the key"},
		{"list", "- a\n", "config.yaml:1: want a mapping, found a list"},
		{"text", "hello", "config.yaml:1: want a mapping, found a string"},
		{"second", minimal + "---\nkind: Config\n", "config.yaml:6: a second document begins here: keep one, without --- between"},
		{"second empty", minimal + "---\n", "config.yaml:6: a second document begins here: keep one, without --- between"},
		{"second broken", minimal + "---\na: [\n", "config.yaml:7: not valid YAML: did not find expected node content"},
		{"tab", "apiVersion: crimux.dev/v1\n\tkind: Config\n", "config.yaml:2: not valid YAML: found a tab character that violates indentation"},
		{"unclosed", minimal + "routes: [\n", "config.yaml:6: not valid YAML: did not find expected node content"},
		{"unknown alias", "listen: *nothing\n", "config.yaml: not valid YAML: unknown anchor 'nothing' referenced"},
		{"binary", "listen: \"\x00\"\n", "config.yaml:1: the control character U+0000 cannot be in a configuration: remove it"},
		{"not utf-8", "listen: \xff\n", "config.yaml:1: the byte 0xff is not UTF-8: save the file as UTF-8"},
		{"too large", strings.Repeat("#", maxFileSize+1), "config.yaml: is larger than 65536 bytes: a configuration needs a few kilobytes"},
	})
}

func TestParseStrict(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"unknown key", minimal + "percent: 3\n", "config.yaml:6: percent: unknown key (there are apiVersion, kind, listen, adminListen, stateDir, runtimeName, backends, routes, default, migration, health, log, record, sinks)"},
		{"unknown key, near", minimal + "adminlisten: fd://\n", "config.yaml:6: adminlisten: unknown key (did you mean adminListen?)"},
		{"unknown nested key", `apiVersion: crimux.dev/v1
kind: Config
default: docker
backends:
  docker:
    type: docker
    cni:
      confdir: /etc/cni/net.d
`, "config.yaml:8: backends.docker.cni.confdir: unknown key (did you mean confDir?)"},
		{"unknown key in a route", minimal + "routes: [{handler: a, backend: docker, backendhandler: b}]\n", "config.yaml:6: routes[0].backendhandler: unknown key (did you mean backendHandler?)"},
		{"odd key", minimal + "\"a.b\\nc\": 1\n", `config.yaml:6: "a.b\nc": unknown key (there are apiVersion, kind, listen, adminListen, stateDir, runtimeName, backends, routes, default, migration, health, log, record, sinks)`},
		{"long key", minimal + "? " + strings.Repeat("k", 200) + "\n: 1\n", `config.yaml:6: "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"…: unknown key (there are apiVersion, kind, listen, adminListen, stateDir, runtimeName, backends, routes, default, migration, health, log, record, sinks)`},
		{"duplicate key", minimal + "kind: Config\n", "config.yaml:6: kind: duplicate key, already given at line 2"},
		{"duplicate backend", strings.Replace(minimal, "default", "  docker: {type: cri}\ndefault", 1), "config.yaml:5: backends.docker: duplicate key, already given at line 4"},
		{"wrong types", minimal + `listen: 3
stateDir: [a]
adminListen: {a: b}
runtimeName: true
routes: {}
migration: []
health: {probeInterval: 1, downAfter: 2026-01-01}
record: {annotations: x}
`, `config.yaml:6: listen: want a string, found a whole number
config.yaml:7: stateDir: want a string, found a list
config.yaml:8: adminListen: want a string, found a mapping
config.yaml:9: runtimeName: want a string, found a boolean
config.yaml:10: routes: want a list, found a mapping
config.yaml:11: migration: want a mapping, found a list
config.yaml:12: health.probeInterval: "1" has no unit: write it like 10s or 500ms
config.yaml:12: health.downAfter: want a string, found a date
config.yaml:13: record.annotations: want a list, found a string`},
		{"wrong numbers", minimal + "migration: {to: docker, percent: 1.5}\n", "config.yaml:6: migration.percent: want a whole number, found a number with a fraction"},
		{"octal", minimal + "migration: {to: docker, percent: 0x10}\n", `config.yaml:6: migration.percent: "0x10" is not a decimal number that fits`},
		{"underscore", minimal + "migration: {to: docker, percent: 1_0}\n", `config.yaml:6: migration.percent: "1_0" is not a decimal number that fits`},
		{"quoted number", minimal + "migration: {to: docker, percent: \"10\"}\n", "config.yaml:6: migration.percent: want a whole number, found a string"},
		{"wrong items", minimal + "routes:\n- docker\n- 3\nrecord: {annotations: [1, {}]}\n", `config.yaml:7: routes[0]: want a mapping, found a string
config.yaml:8: routes[1]: want a mapping, found a whole number
config.yaml:9: record.annotations[0]: want a string, found a whole number
config.yaml:9: record.annotations[1]: want a string, found a mapping`},
		{"durations", minimal + "health: {probeInterval: soon, downAfter: 10 s}\n", `config.yaml:6: health.probeInterval: "soon" is not a duration: write it like 10s or 500ms
config.yaml:6: health.downAfter: "10 s" is not a duration: write it like 10s or 500ms`},
		{"nothing after a key", minimal + "migration:\nlisten:\n", `config.yaml:6: migration: has no value: give it one or remove the key
config.yaml:7: listen: has no value: give it one or remove the key`},
		{"tagged", minimal + "listen: !secret x\nroutes: !!set {a}\n", `config.yaml:6: listen: want a string, found a value tagged "!secret"
config.yaml:7: routes: want a list, found a value tagged "!!set"`},
		{"tag and kind differ", minimal + "listen: !!str {a: b}\nstateDir: !!int x\nmigration: {percent: !!int x}\n", `config.yaml:6: listen: has a tag that does not fit its value: remove the tag
config.yaml:7: stateDir: want a string, found a whole number
config.yaml:8: migration.percent: "x" is not a decimal number that fits`},
	})
}

func TestParseReferences(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"keys that are no strings", minimal + "3: a\n[a]: b\n? {a: b}\n: c\n~: d\n", `config.yaml:6: a key must be a string: put it in quotes if it is meant as one
config.yaml:7: a key must be a string: put it in quotes if it is meant as one
config.yaml:8: a key must be a string: put it in quotes if it is meant as one
config.yaml:10: a key must be a string: put it in quotes if it is meant as one`},
		{"merge", minimal + "<<: {listen: x}\n", "config.yaml:6: anchors, aliases and merge keys are not supported: write the value out"},
		{"alias", minimal + "listen: &a unix:///a\nadminListen: *a\n", `config.yaml:6: listen: anchors, aliases and merge keys are not supported: write the value out
config.yaml:7: adminListen: anchors, aliases and merge keys are not supported: write the value out`},
		{"alias key", minimal + "&a listen: unix:///a\n*a : unix:///a\n", `config.yaml:6: anchors, aliases and merge keys are not supported: write the value out
config.yaml:7: anchors, aliases and merge keys are not supported: write the value out`},
		{"bomb", minimal + `routes: &a [x, x, x, x, x, x, x, x, x]
record: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
migration: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
health: [*c, *c, *c, *c, *c, *c, *c, *c, *c]
`, `config.yaml:6: routes: anchors, aliases and merge keys are not supported: write the value out
config.yaml:7: record: anchors, aliases and merge keys are not supported: write the value out
config.yaml:8: migration: anchors, aliases and merge keys are not supported: write the value out
config.yaml:9: health: want a mapping, found a list`},
		{"recursion", minimal + "migration: &a {to: *a}\n", "config.yaml:6: migration: anchors, aliases and merge keys are not supported: write the value out"},
	})
}

func TestParseReportsEverything(t *testing.T) {
	runInvalid(t, []invalidCase{{"many", `kind: config
apiVersion: v1
listen: tcp://0.0.0.0:1
backends:
  Docker:
    type: docker
    cni: {confdir: /x, binDirs: []}
  other:
    endpoint: unix:///run/o.sock
    surprise: 1
routes:
  - {handler: docker, backend: docker}
  - {handler: docker, backend: other}
migration: {to: Docker, percent: 200}
default: dockr
`, `config.yaml:1: kind: "config" is not supported: write Config
config.yaml:2: apiVersion: "v1" is not supported: write crimux.dev/v1
config.yaml:3: listen: "tcp://0.0.0.0:1" is neither unix:// nor fd://: write it like unix:///run/crimux/crimux.sock, or fd:// for a socket of systemd
config.yaml:5: backends.Docker: cannot be the name of a backend: lower-case letters, digits and - only, at most 63
config.yaml:7: backends.Docker.cni.confdir: unknown key (did you mean confDir?)
config.yaml:7: backends.Docker.cni.binDirs: is empty: name the folders of the CNI plugins, or remove the key for the usual ones
config.yaml:8: backends.other.type: is missing: write docker or cri
config.yaml:10: backends.other.surprise: unknown key (there are type, endpoint, podInfraImage, streamListen, checkpointDirs, cni, logs)
config.yaml:12: routes[0].backend: there is no backend "docker" (did you mean Docker?)
config.yaml:13: routes[1].handler: "docker" already has a route at line 12, and the first match wins: remove one of them
config.yaml:14: migration.percent: 200 is not between 0 and 100
config.yaml:15: default: there is no backend "dockr" (did you mean Docker?)`}})
}

// The report must not grow faster than the file, however much in it is wrong.
func TestParseReportStaysInProportion(t *testing.T) {
	fill := func(head, line string) []byte {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < maxFileSize-2*len(line); i++ {
			fmt.Fprintf(&b, line, i)
		}
		return []byte(b.String())
	}
	for name, data := range map[string][]byte{
		"backends":     fill("backends:\n", "  b%d: {type: docker}\n"),
		"cri backends": fill("backends:\n", "  b%d: {type: cri, endpoint: unix:///a}\n"),
		"routes":       fill(minimal+"routes:\n", "- {handler: h%d, backend: b}\n"),
		"same routes":  fill(minimal+"routes:\n", "- {handler: h, backend: docker, k%d: 1}\n"),
		"keys":         fill(minimal, "k%d: 1\n"),
	} {
		_, err := Parse("config.yaml", data)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if n := len(err.Error()); n > 40*len(data) {
			t.Errorf("%s: %d bytes of problems from %d bytes", name, n, len(data))
		}
	}
}
