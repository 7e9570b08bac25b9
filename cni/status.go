package cni

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// verbs11 is the version of CNI that brought the verbs STATUS and GC.
const verbs11 = "1.1.0"

const (
	// answerFresh is how long an answer to STATUS is as good as a new one.
	answerFresh = 5 * time.Second
	// answerOld is when an answer is no longer given in place of the new one
	// that is on its way.
	answerOld = 30 * time.Second
	// answerBound is how long the plugins of a list have for their answer.
	answerBound = 5 * time.Second
	// answerPatience is how long a caller waits where there is no answer yet.
	answerPatience = time.Second
)

// statusAnswers keeps what the plugins of the default network last answered to
// STATUS. While run runs, they are asked there, and only when somebody wants
// to know: a caller gets the last answer, and waits for none but the first.
// Otherwise a caller asks.
type statusAnswers struct {
	ask  func(context.Context, *libcni.NetworkConfigList) error
	want chan struct{} // holds a token when somebody wants a new answer
	one  keyedLock     // one asks at a time

	mu      sync.Mutex
	running bool
	last    statusAnswer
	came    chan struct{} // closed by the next answer
}

// statusAnswer is the answer for one list, known by its bytes.
type statusAnswer struct {
	list []byte
	err  error
	at   time.Time
}

func newStatusAnswers(ask func(context.Context, *libcni.NetworkConfigList) error) *statusAnswers {
	return &statusAnswers{ask: ask, want: make(chan struct{}, 1), came: make(chan struct{})}
}

// of returns what the plugins of the list answer.
func (s *statusAnswers) of(ctx context.Context, list *libcni.NetworkConfigList) error {
	if !knowsVerbs(list.CNIVersion) {
		return nil
	}
	patience := time.NewTimer(answerPatience)
	defer patience.Stop()
	for {
		last, came, running := s.look(list)
		switch age := time.Since(last.at); {
		case age < answerFresh:
			return last.err
		case !running:
			return s.renew(ctx, list)
		default:
			s.poke()
			if age < answerOld {
				return last.err
			}
		}
		select {
		case <-came:
		case <-patience.C:
			return fmt.Errorf("%w: network %q: its plugins have not answered STATUS yet", ErrNoNetwork, list.Name)
		case <-ctx.Done():
			return fmt.Errorf("%w: network %q: its plugins have not answered STATUS yet: %w", ErrNoNetwork, list.Name, ctx.Err())
		}
	}
}

// look returns the last answer, of no time if it was for another list.
func (s *statusAnswers) look(list *libcni.NetworkConfigList) (last statusAnswer, came <-chan struct{}, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(s.last.list, list.Bytes) {
		last = s.last
	}
	return last, s.came, s.running
}

// poke asks run for a new answer.
func (s *statusAnswers) poke() {
	select {
	case s.want <- struct{}{}:
	default:
	}
}

// renew asks the plugins, unless somebody else just did.
func (s *statusAnswers) renew(ctx context.Context, list *libcni.NetworkConfigList) error {
	bounded, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	unlock, err := s.one.lock(bounded, "")
	if err != nil {
		return fmt.Errorf("%w: network %q: wait for the answer to STATUS: %w", ErrNoNetwork, list.Name, err)
	}
	defer unlock()
	if last, _, _ := s.look(list); time.Since(last.at) < answerFresh {
		return last.err
	}
	err = s.ask(bounded, list)
	if ctx.Err() != nil {
		return err // the caller went away: that says nothing of the plugins
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = statusAnswer{list: list.Bytes, err: err, at: time.Now()}
	close(s.came)
	s.came = make(chan struct{})
	return err
}

// run asks whenever an answer is wanted, and when the network has become
// another one, until ctx is done.
func (s *statusAnswers) run(ctx context.Context, changed <-chan struct{}, usable func() (*libcni.NetworkConfigList, error)) {
	s.setRunning(true)
	defer s.setRunning(false)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.want:
		case <-changed:
		}
		if list, err := usable(); err == nil && knowsVerbs(list.CNIVersion) {
			// The answer is kept for those who ask for it.
			_ = s.renew(ctx, list)
		}
	}
}

func (s *statusAnswers) setRunning(running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
}

// knowsVerbs reports whether a version of CNI has the verbs STATUS and GC.
func knowsVerbs(v string) bool {
	ok, err := version.GreaterThanOrEqualTo(v, verbs11)
	return err == nil && ok
}

// askStatus asks those plugins of the list that know STATUS.
func (n *Networks) askStatus(ctx context.Context, list *libcni.NetworkConfigList) error {
	asked, err := n.withVerbs(ctx, list)
	if err == nil {
		err = n.plugin.GetStatusNetworkList(ctx, asked)
	}
	if err != nil {
		return fmt.Errorf("%w: network %q: %w", ErrNoNetwork, list.Name, err)
	}
	return nil
}

// withVerbs returns the list with those of its plugins that know STATUS and
// GC, which is what they say themselves when they are asked for their version.
// A plugin is asked once, until another one is installed in its place.
func (n *Networks) withVerbs(ctx context.Context, list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, error) {
	out := *list
	out.Plugins = nil
	for _, p := range list.Plugins {
		knows, err := n.verbs.known(ctx, n, p.Network.Type)
		if err != nil {
			return nil, err
		}
		if knows {
			out.Plugins = append(out.Plugins, p)
		}
	}
	return &out, nil
}

// verbPlugins remembers which plugins know STATUS and GC, by their files'
// marks.
type verbPlugins struct {
	mu    sync.Mutex
	knows map[string]bool
}

// known reports whether a plugin knows STATUS and GC.
func (v *verbPlugins) known(ctx context.Context, n *Networks, plugin string) (bool, error) {
	path, err := findPlugin(plugin, n.bins)
	if err != nil {
		return false, err
	}
	var b strings.Builder
	mark(&b, path)
	v.mu.Lock()
	knows, ok := v.knows[b.String()]
	v.mu.Unlock()
	if ok {
		return knows, nil
	}
	info, err := n.plugin.GetVersionInfo(ctx, plugin)
	if err != nil {
		return false, err
	}
	for _, s := range info.SupportedVersions() {
		knows = knows || knowsVerbs(s)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.knows == nil {
		v.knows = map[string]bool{}
	}
	v.knows[b.String()] = knows
	return knows, nil
}
