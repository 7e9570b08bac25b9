package proxy

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// A node has one cgroup driver: the kubelet makes the pods' cgroups by one and
// has each runtime put containers into them. A runtime of another driver would
// put them elsewhere, where no limit of the pod holds. The driver that counts
// is the default backend's; a backend that differs from it is fenced: it gets
// no new pods, and those that it has are served on.

// CgroupDriver asks a runtime for its cgroup driver, "systemd" or "cgroupfs";
// "" where it does not tell. Runtimes older than that question tell it among
// the verbose information of their status.
func CgroupDriver(ctx context.Context, b backends.Backend) (string, error) {
	var resp runtimeapi.RuntimeConfigResponse
	err := askBackend(ctx, b, runtimeapi.RuntimeService_RuntimeConfig_FullMethodName, &runtimeapi.RuntimeConfigRequest{}, &resp)
	if status.Code(err) == codes.Unimplemented {
		return driverOfStatus(ctx, b)
	}
	if err != nil || resp.GetLinux() == nil {
		return "", err
	}
	if resp.Linux.CgroupDriver == runtimeapi.CgroupDriver_SYSTEMD {
		return "systemd", nil
	}
	return "cgroupfs", nil
}

// askBackend carries out a call of the front's own.
func askBackend(ctx context.Context, b backends.Backend, method string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	a, err := b.Invoke(ctx, &backends.Call{Method: method, Request: backends.NewFrame(body), Journal: backends.NoJournal})
	if err != nil {
		return err
	}
	defer a.Body.Free()
	return proto.Unmarshal(a.Body.Bytes(), resp)
}

func driverOfStatus(ctx context.Context, b backends.Backend) (string, error) {
	var resp runtimeapi.StatusResponse
	err := askBackend(ctx, b, runtimeapi.RuntimeService_Status_FullMethodName, &runtimeapi.StatusRequest{Verbose: true}, &resp)
	if err != nil {
		return "", err
	}
	return driverOfInfo(resp.GetInfo()["config"]), nil
}

// driverOfInfo reads the cgroup driver out of containerd's configuration as
// its status gives it; "" where that says nothing of it.
func driverOfInfo(config string) string {
	var c struct {
		Containerd struct {
			Default  string `json:"defaultRuntimeName"`
			Runtimes map[string]struct {
				Type    string         `json:"runtimeType"`
				Options map[string]any `json:"options"`
			} `json:"runtimes"`
		} `json:"containerd"`
	}
	if json.Unmarshal([]byte(config), &c) != nil {
		return ""
	}
	r, ok := c.Containerd.Runtimes[c.Containerd.Default]
	if !ok || r.Type != "io.containerd.runc.v2" {
		return "" // another runtime's options mean what they mean
	}
	if systemd, _ := r.Options["SystemdCgroup"].(bool); systemd {
		return "systemd"
	}
	return "cgroupfs"
}

// learn asks for the cgroup driver unless it is known since the backend came
// up; ok is false where that has to be done again. One that does not tell
// keeps what was known of it.
func (t *attendant) learn(ctx context.Context) (ok bool) {
	t.asking.Lock()
	defer t.asking.Unlock()
	t.mu.Lock()
	learned, came := t.learned, t.came
	t.mu.Unlock()
	if learned {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, attendBound)
	defer cancel()
	driver, err := CgroupDriver(ctx, t.m)
	if err != nil && absent(err) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.came != came {
		return false
	}
	t.learned = true
	if driver != "" && driver != t.driver {
		t.driver = driver
		t.s.logger.Info("cgroup driver", "backend", t.m.Name(), "driver", driver)
	}
	return true
}

// learnPresent is learn, once more where the backend came up while it was asked:
// the answer may be one of before.
func (t *attendant) learnPresent(ctx context.Context) {
	for came := t.arrival(); !t.learn(ctx); {
		now := t.arrival()
		if now == came {
			return
		}
		came = now
	}
}

func (t *attendant) cgroupDriver() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.driver
}

// fence says why a backend gets no new pods, "" where it does. What is not
// known does not fence.
func (s *Server) fence(m *backends.Member) string {
	of := s.attendants[m.Name()].cgroupDriver()
	node := s.attendants[s.config.Default].cgroupDriver()
	if of == "" || node == "" || of == node {
		return ""
	}
	return fmt.Sprintf("backend %q has cgroup driver %s, and the default backend %q has %s: a node has one, so configure both alike and restart the runtime that changes",
		m.Name(), of, s.config.Default, node)
}

// admit refuses a new pod on a backend that is fenced. At the first contact
// both drivers are asked for.
func (s *Server) admit(ctx context.Context, m *method, target *backends.Member) error {
	if target.Name() == s.config.Default {
		return nil
	}
	for _, name := range []string{target.Name(), s.config.Default} {
		// One that is not known to be there would only be waited for.
		if t := s.attendants[name]; t.m.Health().Up {
			t.learnPresent(ctx)
		}
	}
	if why := s.fence(target); why != "" {
		return status.Errorf(codes.FailedPrecondition, "%s: %s", m.name, why)
	}
	return nil
}
