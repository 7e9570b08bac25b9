package proxy

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store/eventpb"
)

// nodeSettings is the runtime config that the kubelet gave last: the node's pod
// CIDR. It is told to every backend, and again to one that comes back. It is
// kept in memory only (the log has that the call was made, not what it said):
// while it is owed to a backend the kubelet was told of an error, and asks
// again.
type nodeSettings struct {
	mu sync.Mutex
	// body is the last UpdateRuntimeConfigRequest, nil before the first;
	// number counts them.
	body   []byte
	number uint64
}

func (c *nodeSettings) set(body []byte) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.body = append([]byte(nil), body...)
	c.number++
	return c.number
}

func (c *nodeSettings) last() ([]byte, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body, c.number
}

// tell gives a backend the last config, unless it has it; ok is false where
// it has to be tried again. A backend that refuses it has refused it.
func (c *nodeSettings) tell(ctx context.Context, t *attendant) (ok bool) {
	body, number := c.last()
	t.mu.Lock()
	told, came := t.told, t.came
	t.mu.Unlock()
	if told >= number {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, attendBound)
	defer cancel()
	m := methods[runtimeapi.RuntimeService_UpdateRuntimeConfig_FullMethodName]
	began := time.Now()
	a, err := read(ctx, t.m, m.full, backends.NewFrame(body))
	if err == nil {
		a.Body.Free()
	}
	t.s.noteCalled(t.m.Name(), m, new(eventpb.Intent), err, time.Since(began))
	return t.took(number, came, err)
}

// took notes what a backend answered to a config, which was sent when it had
// come up that many times; ok is false where it did not get to answer, or has
// come up again since.
func (t *attendant) took(number, came uint64, err error) (ok bool) {
	if err != nil && absent(err) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.came != came {
		return false
	}
	t.told = max(t.told, number)
	return true
}

// updateRuntimeConfig tells every backend. The error of one does not keep the
// others from it. A backend that has no use for it may say Unimplemented.
func (s *Server) updateRuntimeConfig(ctx context.Context, m *method, frame *backends.Frame) (backends.Answer, error) {
	began := time.Now()
	number := s.settings.set(frame.Bytes())
	came := make(map[string]uint64)
	for name, t := range s.attendants {
		came[name] = t.arrival()
	}
	ans := backends.Answer{Body: backends.NewFrame(nil)}
	var failed error
	for _, p := range ask(ctx, s.set.All(), m.full, frame) {
		s.noteCalled(p.member.Name(), m, new(eventpb.Intent), p.err, time.Since(began))
		t := s.attendants[p.member.Name()]
		if !t.took(number, came[p.member.Name()], p.err) {
			t.wake()
		}
		if p.err != nil && status.Code(p.err) != codes.Unimplemented && failed == nil {
			ans, failed = p.ans, p.err
		}
	}
	return ans, failed
}
