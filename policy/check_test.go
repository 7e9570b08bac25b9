package policy

import (
	"strings"
	"testing"
)

// two is a valid configuration to add to.
const two = `apiVersion: crimux.dev/v1
kind: Config
default: docker
backends:
  docker: {type: docker}
  other: {type: cri, endpoint: unix:///run/other.sock}
`

// replaced is two with one part replaced.
func replaced(t *testing.T, old, new string) string {
	t.Helper()
	if strings.Count(two, old) != 1 {
		t.Fatalf("%q does not occur once", old)
	}
	return strings.Replace(two, old, new, 1)
}

func TestCheckTopLevel(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"nothing there", "{}\n", `config.yaml:1: apiVersion: is missing: write crimux.dev/v1
config.yaml:1: kind: is missing: write Config
config.yaml:1: backends: is missing: write at least one backend, such as docker: {type: docker}
config.yaml:1: default: is missing: write the name of a backend`},
		{"other version", replaced(t, "crimux.dev/v1", "crimux.dev/v2"), `config.yaml:1: apiVersion: "crimux.dev/v2" is not supported: write crimux.dev/v1`},
		{"other kind", replaced(t, "kind: Config", "kind: Pod"), `config.yaml:2: kind: "Pod" is not supported: write Config`},
		{"listen is tcp", two + "listen: tcp://127.0.0.1:1\n", `config.yaml:7: listen: "tcp://127.0.0.1:1" is neither unix:// nor fd://: write it like unix:///run/crimux/crimux.sock, or fd:// for a socket of systemd`},
		{"listen is a path", two + "listen: /run/a.sock\n", `config.yaml:7: listen: "/run/a.sock" is neither unix:// nor fd://: write it like unix:///run/crimux/crimux.sock, or fd:// for a socket of systemd`},
		{"listen is relative", two + "listen: unix://run/a.sock\n", `config.yaml:7: listen: "unix://run/a.sock" is not an absolute unix:// path: write it like unix:///run/crimux/crimux.sock`},
		{"listen is a folder", two + "listen: unix:///run/\n", `config.yaml:7: listen: "unix:///run/" is not an absolute unix:// path: write it like unix:///run/crimux/crimux.sock`},
		{"listen is empty", two + "listen: \"\"\n", `config.yaml:7: listen: "" is neither unix:// nor fd://: write it like unix:///run/crimux/crimux.sock, or fd:// for a socket of systemd`},
		{"listen is roundabout", two + "listen: unix:///run/../run//a.sock\n", `config.yaml:7: listen: "/run/../run//a.sock" is not in its shortest form: write "/run/a.sock"`},
		{"listen is too long", two + "listen: unix:///" + strings.Repeat("x", 107) + "\n", "config.yaml:7: listen: the path has 108 bytes, of a socket's at most 107 can be used: choose a shorter one"},
		{"listen has control characters", two + "listen: \"unix:///run/\\0a\"\n", `config.yaml:7: listen: "/run/\x00a" has control characters: remove them`},
		{"listen is an odd descriptor", two + "listen: fd://a/b\n", `config.yaml:7: listen: "fd://a/b" is neither unix:// nor fd://: write it like unix:///run/crimux/crimux.sock, or fd:// for a socket of systemd`},
		{"listen selects legacy statistics", two + "listen: unix:///var/run/crio/crio.sock\n", `config.yaml:7: listen: "unix:///var/run/crio/crio.sock" ends in run/crio/crio.sock, by which the kubelet takes statistics from cAdvisor instead of the CRI: choose another path`},
		{"listen is a backend", two + "listen: unix:///var/run/docker.sock\n", `config.yaml:7: listen: "unix:///var/run/docker.sock" is the endpoint of backend "docker": crimux would talk to itself; choose another address`},
		{"adminListen is a backend", two + "adminListen: unix:///run/other.sock\n", `config.yaml:7: adminListen: "unix:///run/other.sock" is the endpoint of backend "other": crimux would talk to itself; choose another address`},
		{"both are the same", two + "listen: fd://\nadminListen: fd://\n", `config.yaml:8: adminListen: "fd://" is where the kubelet connects (listen): choose another address`},
		{"adminListen is listen's default", two + "adminListen: unix:///var/run/crimux/crimux.sock\n", `config.yaml:7: adminListen: "unix:///var/run/crimux/crimux.sock" is where the kubelet connects (listen): choose another address`},
		{"stateDir is relative", two + "stateDir: var/lib\n", `config.yaml:7: stateDir: "var/lib" is not an absolute path: begin it with /`},
		{"stateDir is the root", two + "stateDir: //\n", `config.yaml:7: stateDir: "//" cannot be the folder of the event log: write it like /var/lib/crimux`},
		{"stateDir is roundabout", two + "stateDir: /var/lib/./crimux\n", `config.yaml:7: stateDir: "/var/lib/./crimux" is not in its shortest form: write "/var/lib/crimux"`},
		{"runtimeName", two + "runtimeName: Docker Engine\n", `config.yaml:7: runtimeName: "Docker Engine" is not a runtime's name: write docker, containerd or another lower-case word`},
		{"event log is small", two + "log: {maxSize: 1m}\n", `config.yaml:7: log.maxSize: "1m" is too small for the events of a busy hour: write at least 16m`},
		{"event log is large", two + "log: {maxSize: 2000g}\n", `config.yaml:7: log.maxSize: "2000g" is too large for an event log: write at most 16g`},
		{"event log has no size", two + "log: {maxSize: 64Mi}\n", `config.yaml:7: log.maxSize: "64Mi" is not a size: write a number of bytes or of k, m or g, like 50m`},
		{"events go at once", two + "log: {retention: 1s}\n", "config.yaml:7: log.retention: 1s is too short to tell anything by: write at least 1m0s"},
		{"events stay for ever", two + "log: {retention: 900000h}\n", "config.yaml:7: log.retention: 900000h0m0s is more than ten years: write at most 87600h0m0s; log.maxSize bounds the log in any case"},
		{"probing is too frequent", two + "health: {probeInterval: 1ms}\n", "config.yaml:7: health.probeInterval: 1ms is too short: write at least 10ms"},
		{"probing runs backwards", two + "health: {probeInterval: -1s}\n", "config.yaml:7: health.probeInterval: -1s is too short: write at least 10ms"},
		{"down before the next probe", two + "health: {probeInterval: 20s}\n", "config.yaml:7: health.downAfter: 10s is shorter than the probe interval of 20s: nothing would ever be up; write a multiple of it"},
		{"down too late", two + "health: {downAfter: 2h}\n", "config.yaml:7: health.downAfter: 2h0m0s is too long to notice a backend that is away: write at most 1h0m0s"},
		{"environment", two + `record:
  environment: everything
`, `config.yaml:8: record.environment: "everything" is not known: write none, names or values`},
		{"annotations", two + `record:
  annotations:
    - ""
    - "*"
    - a*b
    - a b
    - kubectl.kubernetes.io/last-applied-configuration
    - kubectl.*
    - käse
`, `config.yaml:9: record.annotations[0]: "" names no annotation: write a key, or the beginning of keys and *
config.yaml:10: record.annotations[1]: "*" names no annotation: write a key, or the beginning of keys and *
config.yaml:11: record.annotations[2]: "a*b" is not an annotation's key: letters, digits and -_./ only, and * only at the end
config.yaml:12: record.annotations[3]: "a b" is not an annotation's key: letters, digits and -_./ only, and * only at the end
config.yaml:13: record.annotations[4]: "kubectl.kubernetes.io/last-applied-configuration" matches kubectl.kubernetes.io/last-applied-configuration, which repeats the manifest with its secrets: name the keys you need
config.yaml:14: record.annotations[5]: "kubectl.*" matches kubectl.kubernetes.io/last-applied-configuration, which repeats the manifest with its secrets: name the keys you need
config.yaml:15: record.annotations[6]: "käse" is not an annotation's key: letters, digits and -_./ only, and * only at the end`},
	})
}

func TestCheckBackends(t *testing.T) {
	const docker, other = "{type: docker}", "{type: cri, endpoint: unix:///run/other.sock}"
	runInvalid(t, []invalidCase{
		{"none", "apiVersion: crimux.dev/v1\nkind: Config\nbackends: {}\ndefault: docker\nroutes: [{handler: a, backend: b}]\nmigration: {to: c}\n", "config.yaml:3: backends: is empty: write at least one backend, such as docker: {type: docker}"},
		{"not a mapping", "apiVersion: crimux.dev/v1\nkind: Config\nbackends: [docker]\ndefault: docker\n", "config.yaml:3: backends: want a mapping, found a list"},
		{"name in capitals", replaced(t, "  other:", "  Other:"), "config.yaml:6: backends.Other: cannot be the name of a backend: lower-case letters, digits and - only, at most 63"},
		{"name ends in a dash", replaced(t, "  other:", "  other-:"), "config.yaml:6: backends.other-: cannot be the name of a backend: lower-case letters, digits and - only, at most 63"},
		{"name too long", replaced(t, "  other:", "  "+strings.Repeat("o", 64)+":"), `config.yaml:6: backends."oooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooo": cannot be the name of a backend: lower-case letters, digits and - only, at most 63`},
		{"name is odd", replaced(t, "  other:", "  \"o\\nther\":"), `config.yaml:6: backends."o\nther": cannot be the name of a backend: lower-case letters, digits and - only, at most 63`},
		{"no type", replaced(t, other, "{endpoint: unix:///run/other.sock}"), "config.yaml:6: backends.other.type: is missing: write docker or cri"},
		{"unknown type", replaced(t, other, "{type: podman}"), `config.yaml:6: backends.other.type: "podman" is not a type of backend: write docker or cri`},
		{"type of a wrong type", replaced(t, other, "{type: 3}"), "config.yaml:6: backends.other.type: want a string, found a whole number"},
		{"nothing in it", replaced(t, other, ""), "config.yaml:6: backends.other: has no value: give it one or remove the key"},
		{"no endpoint", replaced(t, other, "{type: cri}"), "config.yaml:6: backends.other.endpoint: is missing: write unix:///run/containerd/containerd.sock or where the runtime listens"},
		{"endpoint of a wrong type", replaced(t, other, "{type: cri, endpoint: 3}"), "config.yaml:6: backends.other.endpoint: want a string, found a whole number"},
		{"endpoint is tcp", replaced(t, docker, "{type: docker, endpoint: tcp://10.0.0.1:2375}"), `config.yaml:5: backends.docker.endpoint: "tcp://10.0.0.1:2375" is not an absolute unix:// path: write it like unix:///run/docker.sock`},
		{"endpoint is empty", replaced(t, docker, "{type: docker, endpoint: \"\"}"), `config.yaml:5: backends.docker.endpoint: "" is not an absolute unix:// path: write it like unix:///run/docker.sock`},
		{"endpoint is fd", replaced(t, other, "{type: cri, endpoint: fd://x}"), `config.yaml:6: backends.other.endpoint: "fd://x" is not an absolute unix:// path: write it like unix:///run/docker.sock`},
		{"same endpoint", two + "  third: {type: docker, endpoint: unix:///var/run/docker.sock}\n", `config.yaml:7: backends.third.endpoint: "unix:///var/run/docker.sock" is the endpoint of backend "docker" already, and every pod would be listed twice: remove one of the two`},
		{"docker's keys on cri", replaced(t, other, "{type: cri, endpoint: unix:///a, cni: {}, podInfraImage: x, logs: {}, streamListen: x}"), `config.yaml:6: backends.other.cni: only a backend of type docker has this key: remove it
config.yaml:6: backends.other.podInfraImage: only a backend of type docker has this key: remove it
config.yaml:6: backends.other.logs: only a backend of type docker has this key: remove it
config.yaml:6: backends.other.streamListen: only a backend of type docker has this key: remove it`},
		{"image", replaced(t, docker, "{type: docker, podInfraImage: \"a b\"}"), `config.yaml:5: backends.docker.podInfraImage: "a b" is not the name of an image: write it like registry.k8s.io/pause:3.10`},
		{"no image", replaced(t, docker, "{type: docker, podInfraImage: \"\"}"), `config.yaml:5: backends.docker.podInfraImage: "" is not the name of an image: write it like registry.k8s.io/pause:3.10`},
		{"stream is open", replaced(t, docker, "{type: docker, streamListen: \"0.0.0.0:0\"}"), `config.yaml:5: backends.docker.streamListen: "0.0.0.0:0" is not a loopback address: exec streams must not be reachable from outside; write it like 127.0.0.1:0`},
		{"stream is a name", replaced(t, docker, "{type: docker, streamListen: \"localhost:0\"}"), `config.yaml:5: backends.docker.streamListen: "localhost:0" is not an IP address and port: write it like 127.0.0.1:0`},
		{"stream twice", replaced(t, docker, "{type: docker, streamListen: \"127.0.0.1:9\"}") +
			"  third: {type: docker, endpoint: unix:///c, streamListen: \"127.0.0.1:9\"}\n", `config.yaml:7: backends.third.streamListen: "127.0.0.1:9" is where backend "docker" serves its streams already: choose another port, or 0`},
		{"log size", replaced(t, docker, "{type: docker, logs: {maxSize: 64Mi}}"), `config.yaml:5: backends.docker.logs.maxSize: "64Mi" is not a size: write a number of bytes or of k, m or g, like 50m`},
		{"log size is a number", replaced(t, docker, "{type: docker, logs: {maxSize: 50}}"), "config.yaml:5: backends.docker.logs.maxSize: want a string, found a whole number"},
		{"log size is unlimited", replaced(t, docker, "{type: docker, logs: {maxSize: \"-1\"}}"), `config.yaml:5: backends.docker.logs.maxSize: "-1" is not a size: write a number of bytes or of k, m or g, like 50m`},
		{"log size is small", replaced(t, docker, "{type: docker, logs: {maxSize: 15k}}"), `config.yaml:5: backends.docker.logs.maxSize: "15k" is too small: rotation would outrun the reader; write at least 16k`},
		{"log size is large", replaced(t, docker, "{type: docker, logs: {maxSize: 999999999999g}}"), `config.yaml:5: backends.docker.logs.maxSize: "999999999999g" per log file fills any disk: write at most 1024g`},
		{"log files", replaced(t, docker, "{type: docker, logs: {maxFiles: 1}}"), "config.yaml:5: backends.docker.logs.maxFiles: 1 is not between 2 and 100: with one file rotation would lose lines not yet read"},
		{"cni", replaced(t, docker, "{type: docker, cni: {confDir: net.d, cacheDir: \"\", binDirs: [bin, /a//b, 3]}}"), `config.yaml:5: backends.docker.cni.binDirs[2]: want a string, found a whole number
config.yaml:5: backends.docker.cni.confDir: "net.d" is not an absolute path: begin it with /
config.yaml:5: backends.docker.cni.cacheDir: "" is not an absolute path: begin it with /
config.yaml:5: backends.docker.cni.binDirs[0]: "bin" is not an absolute path: begin it with /
config.yaml:5: backends.docker.cni.binDirs[1]: "/a//b" is not in its shortest form: write "/a/b"`},
		{"cni gc", replaced(t, docker, "{type: docker, cni: {gc: sometimes}}"), "config.yaml:5: backends.docker.cni.gc: want a boolean, found a string"},
		{"cni gc is loud", replaced(t, docker, "{type: docker, cni: {gc: TRUE}}"), `config.yaml:5: backends.docker.cni.gc: "TRUE": write true or false`},
		{"checkpoints", replaced(t, docker, "{type: docker, checkpointDirs: [sandbox]}"), `config.yaml:5: backends.docker.checkpointDirs[0]: "sandbox" is not an absolute path: begin it with /`},
		{"no checkpoints", replaced(t, docker, "{type: docker, checkpointDirs: []}"), "config.yaml:5: backends.docker.checkpointDirs: is empty: name the folders of sandbox checkpoints, or remove the key for the usual ones"},
		{"no cni plugins", replaced(t, docker, "{type: docker, cni: {binDirs: []}}"), "config.yaml:5: backends.docker.cni.binDirs: is empty: name the folders of the CNI plugins, or remove the key for the usual ones"},
	})
}

func TestCheckRoutes(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"no handler", two + "routes: [{backend: docker}]\n", "config.yaml:7: routes[0].handler: must not be empty: pods without a handler go to the backend that the key default names"},
		{"empty handler", two + "routes:\n- handler: \"\"\n  backend: docker\n", "config.yaml:8: routes[0].handler: must not be empty: pods without a handler go to the backend that the key default names"},
		{"impossible handler", two + "routes: [{handler: Kata_QEMU, backend: docker}]\n", `config.yaml:7: routes[0].handler: "Kata_QEMU" cannot be the handler of a RuntimeClass: lower-case letters, digits and - only, at most 63`},
		{"no backend", two + "routes:\n- {handler: a}\n", "config.yaml:8: routes[0].backend: is missing: write the name of a backend (there are docker, other)"},
		{"unknown backend, near", two + "routes:\n- handler: a\n  backend: dokcer\n", `config.yaml:9: routes[0].backend: there is no backend "dokcer" (did you mean docker?)`},
		{"unknown backend", two + "routes: [{handler: a, backend: podman}]\n", `config.yaml:7: routes[0].backend: there is no backend "podman" (there are docker, other)`},
		{"impossible backend handler", two + "routes: [{handler: a, backend: other, backendHandler: a b}]\n", `config.yaml:7: routes[0].backendHandler: "a b" cannot be a runtime's handler: no spaces, at most 253 bytes`},
		{"twice", two + "routes:\n- {handler: a, backend: other}\n- {handler: b, backend: other}\n- {handler: a, backend: docker}\n", `config.yaml:10: routes[2].handler: "a" already has a route at line 8, and the first match wins: remove one of them`},
		{"no default", replaced(t, "default: docker\n", ""), "config.yaml:1: default: is missing: write the name of a backend (there are docker, other)"},
		{"empty default", replaced(t, "default: docker", "default: \"\""), "config.yaml:3: default: is missing: write the name of a backend (there are docker, other)"},
		{"unknown default", replaced(t, "default: docker", "default: podman"), `config.yaml:3: default: there is no backend "podman" (there are docker, other)`},
	})
}

func TestCheckMigration(t *testing.T) {
	runInvalid(t, []invalidCase{
		{"unknown target", two + "migration:\n  to: othr\n", `config.yaml:8: migration.to: there is no backend "othr" (did you mean other?)`},
		{"to the default", two + "migration:\n  to: docker\n  percent: 10\n", `config.yaml:8: migration.to: "docker" is the default already: name the backend that pods are to move to`},
		{"no target", two + "migration:\n  percent: 10\n", "config.yaml:7: migration.to: is missing: write the name of the backend that pods are to move to, or remove the migration"},
		{"handler without target", two + "migration: {backendHandler: runc}\n", "config.yaml:7: migration.to: is missing: write the name of the backend that pods are to move to, or remove the migration"},
		{"impossible handler", two + "migration: {to: other, backendHandler: \"\\t\"}\n", `config.yaml:7: migration.backendHandler: "\t" cannot be a runtime's handler: no spaces, at most 253 bytes`},
		{"too much", two + "migration:\n  to: other\n  percent: 101\n", "config.yaml:9: migration.percent: 101 is not between 0 and 100"},
		{"too little", two + "migration:\n  to: other\n  percent: -1\n", "config.yaml:9: migration.percent: -1 is not between 0 and 100"},
	})
}

func TestCheckAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"two":                      two,
		"flow style":               `{apiVersion: crimux.dev/v1, kind: Config, default: a, backends: {a: {type: docker}}}`,
		"JSON":                     `{"apiVersion": "crimux.dev/v1", "kind": "Config", "default": "a", "backends": {"a": {"type": "docker"}}}`,
		"document marks":           "---\n" + two + "...\n",
		"byte order mark":          "\ufeff" + two,
		"carriage returns":         strings.ReplaceAll(two, "\n", "\r\n"),
		"migration without target": two + "migration: {percent: 0}\n",
		"empty blocks":             two + "migration: {}\nroutes: []\nhealth: {}\nrecord: {annotations: []}\n",
		"environment":              two + "record: {environment: names}\n",
		"name of digits":           strings.ReplaceAll(two, "other:", "\"1\":"),
		"longest name":             strings.ReplaceAll(two, "other:", strings.Repeat("o", 63)+":"),
		"longest socket":           two + "listen: unix:///" + strings.Repeat("x", 106) + "\n",
		"folders with a slash":     replaced(t, "{type: docker}", "{type: docker, cni: {confDir: /etc/cni/, binDirs: [/bin/]}}"),
		"explicit tag":             two + "runtimeName: !!str docker\n",
		"crio below":               replaced(t, "/run/other.sock", "/run/crio/crio.sock"),
		"same port, other host":    replaced(t, "{type: docker}", "{type: docker, streamListen: \"[::1]:9\"}") + "  c: {type: docker, endpoint: unix:///c, streamListen: \"127.0.0.1:9\"}\n",
		"sizes":                    replaced(t, "{type: docker}", "{type: docker, logs: {maxSize: \"16384\"}}") + "  c: {type: docker, endpoint: unix:///c, logs: {maxSize: 1024g}}\n",
		"same endpoint, two types": two + "  third: {type: cri, endpoint: unix:///run/docker.sock}\n",
	} {
		if _, err := Parse("config.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
