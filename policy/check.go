package policy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// label is a DNS label, which is what Kubernetes allows a RuntimeClass handler
// to be.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// check finds what is wrong with values that could be read.
func (r *reader) check(c *Config) {
	if r.failed[""] {
		return
	}
	r.checkSockets(c)
	r.checkValue("", "stateDir", checkStateDir(c.StateDir))
	if !label.MatchString(c.RuntimeName) && r.readable("runtimeName") {
		r.problem(r.lines["runtimeName"], "runtimeName",
			"%s is not a runtime's name: write docker, containerd or another lower-case word", quote(c.RuntimeName))
	}
	r.checkHealth(c.Health)
	r.checkEventLog(c.Log)
	r.checkRecord(c.Record)
	r.checkSinks(c)
	r.checkBackends(c)
	r.checkRoutes(c)
	r.checkDefault(c)
	for _, f := range c.Migration.faults(c) {
		key := join("migration", f.key)
		if r.readable("migration", key, "backends", "default") && (f.key != "to" || r.readable("migration.percent")) {
			r.problem(r.line("migration", key), key, "%s", f.message)
		}
	}
}

// checkValue notes the error as a problem of the key, unless the key could not
// be read in the first place.
func (r *reader) checkValue(parent, name string, err error) {
	key := join(parent, name)
	if err != nil && r.readable(parent, key) {
		r.problem(r.line(parent, key), key, "%s", err)
	}
}

// checkSockets looks at the two addresses that crimux listens on.
func (r *reader) checkSockets(c *Config) {
	r.checkValue("", "listen", checkListen(c.Listen))
	r.checkValue("", "adminListen", checkListen(c.AdminListen))
	if r.readable("listen") && sameSocket(c.Listen, c.AdminListen) {
		r.checkValue("", "adminListen", fmt.Errorf("%s is where the kubelet connects (listen): choose another address", quote(c.AdminListen)))
	}
	if strings.HasSuffix(c.Listen, "run/crio/crio.sock") {
		r.checkValue("", "listen", fmt.Errorf("%s ends in run/crio/crio.sock, by which the kubelet takes statistics from cAdvisor instead of the CRI: choose another path", quote(c.Listen)))
	}
	for _, b := range c.Backends {
		const format = "%s is the endpoint of backend %s: crimux would talk to itself; choose another address"
		if sameSocket(c.Listen, b.Endpoint) {
			r.checkValue("", "listen", fmt.Errorf(format, quote(c.Listen), quote(b.Name)))
		}
		if sameSocket(c.AdminListen, b.Endpoint) {
			r.checkValue("", "adminListen", fmt.Errorf(format, quote(c.AdminListen), quote(b.Name)))
		}
	}
}

// checkStateDir tells what keeps a folder from holding the event log.
func checkStateDir(dir string) error {
	if path.Clean(dir) == "/" {
		return fmt.Errorf("%s cannot be the folder of the event log: write it like %s", quote(dir), DefaultStateDir)
	}
	return checkPath(dir)
}

// The bounds of the probes: more often is load, more seldom is blindness.
const (
	minProbeInterval = 10 * time.Millisecond
	maxDownAfter     = time.Hour
	minListTimeout   = 100 * time.Millisecond
)

// checkHealth looks at the probing of backends.
func (r *reader) checkHealth(h Health) {
	if h.ListTimeout < minListTimeout {
		r.checkValue("health", "listTimeout", fmt.Errorf("%s is too short for a busy node: write at least %s", h.ListTimeout, minListTimeout))
	}
	if h.ProbeInterval < minProbeInterval {
		r.checkValue("health", "probeInterval", fmt.Errorf("%s is too short: write at least %s", h.ProbeInterval, minProbeInterval))
		return
	}
	if !r.readable("health.probeInterval") {
		return
	}
	switch {
	case h.DownAfter < h.ProbeInterval:
		r.checkValue("health", "downAfter", fmt.Errorf("%s is shorter than the probe interval of %s: nothing would ever be up; write a multiple of it", h.DownAfter, h.ProbeInterval))
	case h.DownAfter > maxDownAfter:
		r.checkValue("health", "downAfter", fmt.Errorf("%s is too long to notice a backend that is away: write at most %s", h.DownAfter, maxDownAfter))
	}
}

// checkRecord looks at what is recorded of requests.
func (r *reader) checkRecord(record Record) {
	switch record.Environment {
	case "", EnvironmentNone, EnvironmentNames, EnvironmentValues:
	default:
		r.checkValue("record", "environment", fmt.Errorf("%s is not known: write %s, %s or %s",
			quote(string(record.Environment)), EnvironmentNone, EnvironmentNames, EnvironmentValues))
	}
	for i, pattern := range record.Annotations {
		key := fmt.Sprintf("record.annotations[%d]", i)
		prefix := strings.TrimSuffix(pattern, "*")
		var err error
		switch {
		case prefix == "":
			err = fmt.Errorf("%s names no annotation: write a key, or the beginning of keys and *", quote(pattern))
		case strings.Contains(prefix, "*") || strings.ContainsFunc(prefix, notInKey):
			err = fmt.Errorf("%s is not an annotation's key: letters, digits and -_./ only, and * only at the end", quote(pattern))
		case matches(pattern, secretAnnotation):
			err = fmt.Errorf("%s matches %s, which repeats the manifest with its secrets: name the keys you need", quote(pattern), secretAnnotation)
		}
		if err != nil && r.readable(key) {
			r.problem(r.lines[key], key, "%s", err)
		}
	}
}

// notInKey tells whether a character cannot occur in an annotation's key.
func notInKey(c rune) bool {
	return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-_./", c)
}

// checkRoutes looks at the routes.
func (r *reader) checkRoutes(c *Config) {
	first := map[string]int{}
	for i, route := range c.Routes {
		parent := fmt.Sprintf("routes[%d]", i)
		if !r.readable(parent) {
			continue
		}
		line := r.line(parent, join(parent, "handler"))
		switch earlier, again := first[route.Handler]; {
		case route.Handler == "":
			r.checkValue(parent, "handler", fmt.Errorf("must not be empty: pods without a handler go to the backend that the key default names"))
		case !label.MatchString(route.Handler):
			r.checkValue(parent, "handler", fmt.Errorf("%s cannot be the handler of a RuntimeClass: lower-case letters, digits and - only, at most 63", quote(route.Handler)))
		case again:
			r.checkValue(parent, "handler", fmt.Errorf("%s already has a route at line %d, and the first match wins: remove one of them", quote(route.Handler), earlier))
		default:
			first[route.Handler] = line
		}
		r.checkValue(parent, "backend", c.checkName(route.Backend))
		r.checkValue(parent, "backendHandler", checkBackendHandler(route.BackendHandler))
	}
}

// checkDefault looks at the default.
func (r *reader) checkDefault(c *Config) {
	if r.lines["default"] == 0 {
		if len(c.Backends) > 0 {
			r.missing("", "default", "the name of a backend ("+suggest("", c.backendNames())+")")
		} else {
			r.missing("", "default", "the name of a backend")
		}
		return
	}
	r.checkValue("", "default", c.checkName(c.Default))
}

// checkName tells what keeps a name from being a backend's. Without backends it
// stays silent: that there are none has been said.
func (c *Config) checkName(name string) error {
	if _, ok := c.Backend(name); ok || len(c.Backends) == 0 {
		return nil
	}
	if name == "" {
		return fmt.Errorf("is missing: write the name of a backend (%s)", suggest("", c.backendNames()))
	}
	return fmt.Errorf("there is no backend %s (%s)", quote(name), suggest(name, c.backendNames()))
}

// checkBackendHandler tells what keeps a value from being the handler that a
// backend is told. Runtimes name theirs more freely than Kubernetes does.
func checkBackendHandler(handler string) error {
	unusable := func(c rune) bool { return !unicode.IsPrint(c) || unicode.IsSpace(c) }
	if len(handler) > 253 || strings.ContainsFunc(handler, unusable) {
		return fmt.Errorf("%s cannot be a runtime's handler: no spaces, at most 253 bytes", quote(handler))
	}
	return nil
}
