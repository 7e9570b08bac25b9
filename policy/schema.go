package policy

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// config reads the whole document over the defaults.
func (r *reader) config(root *yaml.Node) *Config {
	c := &Config{
		Listen:      DefaultListen,
		AdminListen: DefaultAdminListen,
		StateDir:    DefaultStateDir,
		Health:      Health{ProbeInterval: DefaultProbeInterval, DownAfter: DefaultDownAfter, ListTimeout: DefaultListTimeout},
		Log:         EventLog{MaxSize: DefaultEventsMaxSize, Retention: DefaultRetention},
	}
	var apiVersion, kind string
	r.lines[""] = root.Line
	r.object("", root,
		field{"apiVersion", r.text(&apiVersion)},
		field{"kind", r.text(&kind)},
		field{"listen", r.text(&c.Listen)},
		field{"adminListen", r.text(&c.AdminListen)},
		field{"stateDir", r.text(&c.StateDir)},
		field{"runtimeName", r.text(&c.RuntimeName)},
		field{"backends", r.backends(c)},
		field{"routes", r.list(r.route(c))},
		field{"default", r.text(&c.Default)},
		field{"migration", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"to", r.text(&c.Migration.To)},
				field{"backendHandler", r.text(&c.Migration.BackendHandler)},
				field{"percent", r.number(&c.Migration.Percent)})
		}},
		field{"health", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"probeInterval", r.duration(&c.Health.ProbeInterval)},
				field{"downAfter", r.duration(&c.Health.DownAfter)},
				field{"listTimeout", r.duration(&c.Health.ListTimeout)})
		}},
		field{"log", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"maxSize", r.text(&c.Log.MaxSize)},
				field{"retention", r.duration(&c.Log.Retention)})
		}},
		field{"record", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"annotations", r.texts(&c.Record.Annotations)},
				field{"environment", r.text((*string)(&c.Record.Environment))})
		}},
		field{"sinks", r.list(r.sink(c))})
	if r.failed[""] {
		return c // not even a mapping; that nothing is in it is no news
	}
	r.constant("apiVersion", apiVersion, APIVersion)
	r.constant("kind", kind, Kind)
	r.defaultRuntimeName(c)
	return c
}

// constant checks a key that can have one value only.
func (r *reader) constant(key, got, want string) {
	switch {
	case r.failed[key]:
	case r.lines[key] == 0:
		r.missing("", key, want)
	case got != want:
		r.problem(r.lines[key], key, "%s is not supported: write %s", quote(got), want)
	}
}

// defaultRuntimeName derives the runtime's name where none is configured.
func (r *reader) defaultRuntimeName(c *Config) {
	if r.lines["runtimeName"] != 0 {
		return
	}
	c.RuntimeName = "containerd"
	if b, ok := c.Backend(c.Default); ok && b.Type == TypeDocker {
		c.RuntimeName = "docker"
	}
}

// route reads one element of the routes.
func (r *reader) route(c *Config) value {
	return func(key string, n *yaml.Node) {
		var rule RouteRule
		r.object(key, n,
			field{"handler", r.text(&rule.Handler)},
			field{"backend", r.text(&rule.Backend)},
			field{"backendHandler", r.text(&rule.BackendHandler)})
		c.Routes = append(c.Routes, rule)
	}
}

// backends reads the backends, keeping the order of the file.
func (r *reader) backends(c *Config) value {
	return func(key string, n *yaml.Node) {
		r.entries(key, n, func(name, child string, n *yaml.Node) {
			c.Backends = append(c.Backends, r.backend(name, child, n))
		})
	}
}

// dockerOnly are the keys that a backend of another type cannot have.
var dockerOnly = []string{"cni", "podInfraImage", "logs", "streamListen", "checkpointDirs"}

// backend reads one backend.
func (r *reader) backend(name, key string, n *yaml.Node) Backend {
	var kind string
	b := Backend{
		Name:          name,
		CNI:           CNI{ConfDir: DefaultCNIConfDir, BinDirs: DefaultCNIBinDirs(), CacheDir: DefaultCNICacheDir},
		PodInfraImage: DefaultPodInfraImage,
		Logs:          Logs{MaxSize: DefaultLogMaxSize, MaxFiles: DefaultLogMaxFiles},
		StreamListen:  DefaultStreamListen,

		CheckpointDirs: DefaultCheckpointDirs(),
	}
	r.object(key, n,
		field{"type", r.text(&kind)},
		field{"endpoint", r.text(&b.Endpoint)},
		field{"podInfraImage", r.text(&b.PodInfraImage)},
		field{"streamListen", r.text(&b.StreamListen)},
		field{"checkpointDirs", r.texts(&b.CheckpointDirs)},
		field{"cni", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"confDir", r.text(&b.CNI.ConfDir)},
				field{"binDirs", r.texts(&b.CNI.BinDirs)},
				field{"cacheDir", r.text(&b.CNI.CacheDir)},
				field{"gc", r.flag(&b.CNI.GC)})
		}},
		field{"logs", func(key string, n *yaml.Node) {
			r.object(key, n,
				field{"maxSize", r.text(&b.Logs.MaxSize)},
				field{"maxFiles", r.number(&b.Logs.MaxFiles)})
		}})
	switch b.Type = BackendType(kind); b.Type {
	case TypeDocker:
		if r.lines[join(key, "endpoint")] == 0 {
			b.Endpoint = DefaultDockerEndpoint
		}
		return b
	case TypeCRI:
		return r.criBackend(b, key)
	}
	typeKey := join(key, "type")
	switch {
	case r.failed[key] || r.failed[typeKey]:
	case r.lines[typeKey] == 0:
		r.missing(key, "type", "docker or cri")
	default:
		r.problem(r.lines[typeKey], typeKey, "%s is not a type of backend: write docker or cri", quote(kind))
	}
	r.failed[key] = true // what the other keys ought to be depends on the type
	return b
}

// criBackend reduces what was read to what a CRI backend has.
func (r *reader) criBackend(b Backend, key string) Backend {
	for _, name := range dockerOnly {
		child := join(key, name)
		if line := r.lines[child]; line != 0 {
			r.problem(line, child, "only a backend of type docker has this key: remove it")
		}
	}
	if endpoint := join(key, "endpoint"); r.lines[endpoint] == 0 {
		r.missing(key, "endpoint", "unix:///run/containerd/containerd.sock or where the runtime listens")
		r.failed[endpoint] = true
	}
	return Backend{Name: b.Name, Type: b.Type, Endpoint: b.Endpoint}
}

// missing notes that a mapping lacks a key that it must have.
func (r *reader) missing(parent, name, want string) {
	r.problem(r.lines[parent], join(parent, name), "is missing: write %s", want)
}

// readable tells whether a key and all it lies in could be read, so that a
// check of its value makes sense.
func (r *reader) readable(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return r.failed[key] })
}

// line returns the line of a key, or that of the nearest key around it.
func (r *reader) line(parent, key string) int {
	if line, ok := r.lines[key]; ok {
		return line
	}
	return r.lines[parent]
}
