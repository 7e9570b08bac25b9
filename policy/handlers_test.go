package policy

import (
	"reflect"
	"slices"
	"testing"
)

// shared is a configuration in which front handlers share backend handlers.
const shared = `apiVersion: crimux.dev/v1
kind: Config
default: docker
backends:
  docker: {type: docker}
  containerd: {type: cri, endpoint: unix:///run/containerd/containerd.sock}
routes:
  - {handler: zeta, backend: containerd, backendHandler: runc}
  - {handler: docker, backend: docker}
  - {handler: alpha, backend: containerd, backendHandler: runc}
  - {handler: kata, backend: containerd, backendHandler: kata}
  - {handler: plain, backend: containerd}
migration: {to: containerd, backendHandler: runc}
`

func TestHandlers(t *testing.T) {
	want := []string{"alpha", "docker", "kata", "plain", "zeta"}
	c := parse(t, shared)
	if got := c.Handlers(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.Handlers()[0] = "changed"
	if got := c.Handlers(); !reflect.DeepEqual(got, want) || c.Routes[0].Handler != "zeta" {
		t.Errorf("the caller's change got through: %q, %+v", got, c.Routes)
	}
	if got := parse(t, minimal).Handlers(); len(got) != 0 {
		t.Errorf("without routes: %q", got)
	}
}

func TestFrontHandlers(t *testing.T) {
	c := parse(t, shared)
	for _, want := range []struct {
		backend, handler string
		front            []string
	}{
		{"docker", "", []string{"", "docker"}},
		{"docker", "runc", nil},
		{"containerd", "runc", []string{"", "alpha", "zeta"}},
		{"containerd", "kata", []string{"kata"}},
		{"containerd", "", []string{"plain"}},
		{"containerd", "other", nil},
		{"podman", "", nil},
	} {
		if got := c.FrontHandlers(want.backend, want.handler); !reflect.DeepEqual(got, want.front) {
			t.Errorf("%s, %q: got %q, want %q", want.backend, want.handler, got, want.front)
		}
	}
}

// Every way that Decide can send a pod must be among the front handlers, else
// Status would hide a handler that pods use.
func TestFrontHandlersCoverDecide(t *testing.T) {
	c := parse(t, shared)
	for percent := range 101 {
		m := c.Migration
		m.Percent = percent
		c, err := c.WithMigration(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, handler := range append(c.Handlers(), "") {
			r, err := Decide(Pod{UID: uid45, Handler: handler}, view{}, c)
			if err != nil {
				t.Fatal(err)
			}
			front := c.FrontHandlers(r.Backend, r.BackendHandler)
			if !slices.Contains(front, handler) {
				t.Errorf("%d%%: %q goes to %s, %q, whose front handlers are %q", percent, handler, r.Backend, r.BackendHandler, front)
			}
		}
	}
}
