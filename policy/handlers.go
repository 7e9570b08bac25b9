package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Handlers returns the front handlers that pods can ask for, sorted. The empty
// handler, which every pod can ask for, is not among them. The slice is the
// caller's own.
func (c *Config) Handlers() []string {
	handlers := make([]string, 0, len(c.Routes))
	for _, r := range c.Routes {
		handlers = append(handlers, r.Handler)
	}
	slices.Sort(handlers)
	return slices.Compact(handlers)
}

// FrontHandlers returns the front handlers whose pods reach that backend under
// that handler of its own, sorted, and none when there are none. The empty
// handler is among them, and then first, when pods without a RuntimeClass can
// get there: it is the default under its own default handler, or what the
// migration moves to, at whatever percentage. The slice is the caller's own.
func (c *Config) FrontHandlers(backend, backendHandler string) []string {
	var handlers []string
	isDefault := backend == c.Default && backendHandler == ""
	isTarget := c.Migration.To != "" && backend == c.Migration.To && backendHandler == c.Migration.BackendHandler
	if isDefault || isTarget {
		handlers = append(handlers, "")
	}
	for _, r := range c.Routes {
		if r.Backend == backend && r.BackendHandler == backendHandler {
			handlers = append(handlers, r.Handler)
		}
	}
	slices.Sort(handlers)
	return slices.Compact(handlers)
}

// UnknownHandlerError says that no route has the handler that a pod asked for.
type UnknownHandlerError struct {
	// Handler is what the pod asked for.
	Handler string
	// Known are the handlers there are, sorted.
	Known []string
}

// Error names the handler, those there are, and the remedy.
func (e *UnknownHandlerError) Error() string {
	known := "the configuration has no routes"
	if len(e.Known) > 0 {
		known = "the configuration has routes for " + strings.Join(e.Known, ", ")
	}
	return fmt.Sprintf("no route for runtime handler %s: %s; correct the handler of the pod's RuntimeClass or add a route for it to the configuration",
		quote(e.Handler), known)
}

// MissingBackendError says that a pod still runs on a backend that is no longer
// configured, so that no other backend may start it.
type MissingBackendError struct {
	// Pod is the pod that was to be decided.
	Pod Pod
	// Backend is where something of it runs.
	Backend string
}

// Error names the pod, the backend and the remedy.
func (e *MissingBackendError) Error() string {
	return fmt.Sprintf("pod %s/%s (uid %s) still runs on backend %s, which the configuration no longer has: configure that backend again, or run %q if it will never come back",
		e.Pod.Namespace, e.Pod.Name, e.Pod.UID, quote(e.Backend), "crimux forget "+e.Backend)
}
