package proxy

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

// flight is one operation under way. Its answer may be read once done is
// closed.
type flight struct {
	done chan struct{}
	body []byte
	ans  backends.Answer
	err  error
	// abandoned is set where the operation ended because its own caller went
	// away: that is no answer for anybody else.
	abandoned bool
}

// flights are the operations under way by key, so that the identical retry of
// a caller that gave up waits for the first call instead of racing it.
type flights struct {
	mu    sync.Mutex
	byKey map[string]*flight
}

// joinKey names an operation. Its parts cannot run into each other.
func joinKey(method, a, b, c string, attempt uint32) string {
	return strings.Join([]string{method, strconv.Quote(a), strconv.Quote(b), strconv.Quote(c), strconv.FormatUint(uint64(attempt), 10)}, "/")
}

// enter returns the flight of key and whether the caller is to carry it out.
// An empty key is a flight of its own.
func (f *flights) enter(key string) (fl *flight, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.byKey[key]; ok && key != "" {
		return fl, false
	}
	fl = &flight{done: make(chan struct{})}
	if key != "" {
		if f.byKey == nil {
			f.byKey = make(map[string]*flight)
		}
		f.byKey[key] = fl
	}
	return fl, true
}

// land gives the flight its answer.
func (f *flights) land(key string, fl *flight, a backends.Answer, err error, abandoned bool) {
	if a.Body != nil {
		// Several callers may send the body: it must not be theirs to free.
		fl.body = append([]byte(nil), a.Body.Bytes()...)
		a.Body.Free()
		a.Body = nil
	}
	fl.ans, fl.err, fl.abandoned = a, err, abandoned
	f.mu.Lock()
	if f.byKey[key] == fl {
		delete(f.byKey, key)
	}
	f.mu.Unlock()
	close(fl.done)
}

// wait returns the flight's answer, or ctx's end as a status.
func (fl *flight) wait(ctx context.Context) (backends.Answer, error) {
	select {
	case <-fl.done:
	case <-ctx.Done():
		return backends.Answer{}, status.FromContextError(ctx.Err()).Err()
	}
	a := fl.ans
	if fl.err == nil {
		a.Body = backends.NewFrame(fl.body)
	}
	return a, fl.err
}

// ended tells whether err says that its caller went away.
func ended(err error) bool {
	c := status.Code(err)
	return c == codes.Canceled || c == codes.DeadlineExceeded
}
