package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Pod is what a decision looks at.
type Pod struct {
	Namespace, Name, UID string
	// Handler is the runtime_handler that the kubelet asked for; "" for a pod
	// without a RuntimeClass.
	Handler string
}

// View is what a decision may know of the state. Decide calls its methods in
// the caller's goroutine; they must answer from one and the same state.
type View interface {
	// Epoch is the number of the newest migration decision (start, set, rollback,
	// gate); 0 when there was none.
	Epoch() uint64
	// Decision returns the last decision made for a pod uid, if any.
	Decision(uid string) (Decision, bool)
	// Live returns the backend on which something of the pod still runs, if any.
	Live(uid string) (backend string, ok bool)
}

// Decision is what the state remembers of a Route.
type Decision struct {
	Backend, BackendHandler string
	Epoch                   uint64
	Rule                    string
}

// Route is where a sandbox goes and why.
type Route struct {
	// Handler is the front handler, as the pod asked for it.
	Handler string
	// Backend and BackendHandler are where the pod goes and what that backend is
	// told as its handler.
	Backend, BackendHandler string
	// Rule is the reason, one short line for events and timelines.
	Rule string
	// Epoch is the epoch whose migration this follows. A pod that only stays
	// because it still runs has not been decided: it keeps the epoch of the
	// decision it rests on (0 if there is none), so that its next sandbox is
	// decided as soon as nothing of it runs any more. Record it as it is.
	Epoch uint64
}

// Decision returns what the state is to remember of the route.
func (r Route) Decision() Decision {
	return Decision{Backend: r.Backend, BackendHandler: r.BackendHandler, Epoch: r.Epoch, Rule: r.Rule}
}

// Decide returns where a new sandbox of the pod goes. It is pure: equal
// arguments give equal answers, and nothing is changed. c must have come from
// Load, Parse or WithMigration, and v must not be nil.
//
// The error is an *UnknownHandlerError when no route has the pod's handler, and
// a *MissingBackendError when the pod still runs on a backend that is no longer
// configured.
func Decide(p Pod, v View, c *Config) (Route, error) {
	if p.Handler != "" {
		return decideHandler(p, v, c)
	}
	if r, ok, err := decideLive(p, v, c); ok || err != nil {
		return r, err
	}
	m := c.Migration
	if m.To == "" {
		return Route{Backend: c.Default, Rule: "default", Epoch: v.Epoch()}, nil
	}
	if d, ok := decidedBefore(p, v, c); ok {
		return Route{Backend: d.Backend, BackendHandler: d.BackendHandler, Rule: "default: decided before", Epoch: d.Epoch}, nil
	}
	bucket := Bucket(p.UID)
	if bucket < m.Percent {
		return Route{
			Backend:        m.To,
			BackendHandler: m.BackendHandler,
			Rule:           fmt.Sprintf("migration to %s: bucket %d < %d%%", m.To, bucket, m.Percent),
			Epoch:          v.Epoch(),
		}, nil
	}
	return Route{
		Backend: c.Default,
		Rule:    fmt.Sprintf("default: bucket %d ≥ %d%%", bucket, m.Percent),
		Epoch:   v.Epoch(),
	}, nil
}

// decideHandler routes a pod that names a handler.
func decideHandler(p Pod, v View, c *Config) (Route, error) {
	for _, r := range c.Routes {
		if r.Handler == p.Handler {
			return Route{
				Handler:        p.Handler,
				Backend:        r.Backend,
				BackendHandler: r.BackendHandler,
				Rule:           "handler " + r.Handler,
				Epoch:          v.Epoch(),
			}, nil
		}
	}
	return Route{}, &UnknownHandlerError{Handler: p.Handler, Known: c.Handlers()}
}

// decideLive keeps a pod where something of it runs: two backends must never
// hold containers of one pod at the same time. ok is false when nothing runs.
func decideLive(p Pod, v View, c *Config) (r Route, ok bool, err error) {
	if p.UID == "" {
		// Pods without a uid (crictl makes them) have nothing in common.
		return Route{}, false, nil
	}
	backend, live := v.Live(p.UID)
	if !live {
		return Route{}, false, nil
	}
	if _, known := c.Backend(backend); !known {
		return Route{}, false, &MissingBackendError{Pod: p, Backend: backend}
	}
	r = Route{Backend: backend, Rule: "default: uid runs on " + backend}
	if d, decided := v.Decision(p.UID); decided && d.Backend == backend {
		r.BackendHandler, r.Epoch = d.BackendHandler, d.Epoch
	} else if backend == c.Migration.To {
		r.BackendHandler = c.Migration.BackendHandler
	}
	return r, true, nil
}

// decidedBefore returns the decision of the present epoch, if there is one. A
// decision for a backend that is neither the default nor the target any more
// was made under another configuration and binds nobody.
func decidedBefore(p Pod, v View, c *Config) (Decision, bool) {
	if p.UID == "" {
		return Decision{}, false
	}
	d, ok := v.Decision(p.UID)
	if !ok || d.Epoch != v.Epoch() || (d.Backend != c.Default && d.Backend != c.Migration.To) {
		return Decision{}, false
	}
	return d, true
}

// Bucket returns the uid's place, 0 to 99, in the order in which pods migrate:
// the first 8 bytes of the SHA-256 of the uid, as a big-endian number, modulo
// 100. This never changes, since a pod's place must outlive every release. By
// hand it is
//
//	python3 -c 'import hashlib,sys; print(int(hashlib.sha256(sys.argv[1].encode()).hexdigest()[:16], 16) % 100)' UID
//
// Safe for concurrent use.
func Bucket(uid string) int {
	sum := sha256.Sum256([]byte(uid))
	return int(binary.BigEndian.Uint64(sum[:8]) % 100)
}
