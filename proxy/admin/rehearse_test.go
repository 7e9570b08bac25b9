package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/proxy"
)

// rehearser rehearses as its field says, one at a time.
type rehearser struct {
	one sync.Mutex
	do  func(ctx context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error)
}

// Rehearse implements Rehearser.
func (r *rehearser) Rehearse(ctx context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
	if !r.one.TryLock() {
		return nil, status.Error(codes.Aborted, "another rehearsal is under way")
	}
	defer r.one.Unlock()
	return r.do(ctx, req, tell)
}

// rehearsing is a daemon that rehearses so.
func rehearsing(t *testing.T, do func(ctx context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error)) (*Server, *Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	l := listenAt(t, path)
	s := NewServer(nil, nil)
	s.ServeRehearsals(&rehearser{do: do})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

var asked = proxy.RehearsalRequest{
	Sandbox: "aa", On: "containerd", Level: proxy.LevelStart, Network: true, HostMounts: true, Pull: true,
	Env: []proxy.EnvVar{{Name: "A", Value: "1\n\"2\""}}, Timeout: 7,
}

func TestRehearse(t *testing.T) {
	var got proxy.RehearsalRequest
	_, c := rehearsing(t, func(_ context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
		got = req
		tell("making a sandbox")
		tell("removing it")
		return &proxy.Rehearsal{ID: "x", Differences: []string{"a", "b"}}, nil
	})
	var told []string
	r, err := c.Rehearse(t.Context(), asked, func(words string) { told = append(told, words) })
	if err != nil || r.ID != "x" || len(r.Differences) != 2 || strings.Join(told, "; ") != "making a sandbox; removing it" {
		t.Errorf("%+v, %v, told %q", r, err, told)
	}
	if len(got.Env) != 1 || got.Env[0] != asked.Env[0] || got.Sandbox != "aa" || got.On != "containerd" || got.Level != proxy.LevelStart ||
		!got.Network || !got.HostMounts || !got.Pull || got.Timeout != 7 {
		t.Errorf("the daemon got %+v", got)
	}
}

// TestRehearseBadRequests: what is no request is told so, and carries nothing
// out.
func TestRehearseBadRequests(t *testing.T) {
	_, c := rehearsing(t, func(context.Context, proxy.RehearsalRequest, func(string)) (*proxy.Rehearsal, error) {
		t.Error("it is carried out")
		return &proxy.Rehearsal{}, nil
	})
	for name, body := range map[string]string{
		"empty":            "",
		"no JSON":          "{",
		"a list":           "[]",
		"an unknown field": `{"sandbox": "aa", "privileged": true}`,
		"another type":     `{"sandbox": 1}`,
		"two":              `{"sandbox": "aa"} {"sandbox": "bb"}`,
		"too large":        `{"sandbox": "` + strings.Repeat("a", maxRehearse) + `"}`,
	} {
		resp, err := c.http.Post("http://crimux"+rehearsePath, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		words, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusBadRequest || !bytes.HasPrefix(words, []byte("what to rehearse: ")) {
			t.Errorf("%s: %s, %q, %v", name, resp.Status, words, err)
		}
	}
	resp, err := c.http.Get("http://crimux" + rehearsePath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", resp.Status)
	}
}

// TestRehearseFails tells why, before the answer has begun and after it.
func TestRehearseFails(t *testing.T) {
	for _, begun := range []bool{false, true} {
		_, c := rehearsing(t, func(_ context.Context, _ proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
			if begun {
				tell("making a sandbox")
			}
			return nil, status.Error(codes.FailedPrecondition, "it lacks the image")
		})
		r, err := c.Rehearse(t.Context(), asked, func(string) {})
		if r != nil || err == nil || err.Error() != "it lacks the image" {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestRehearseTwoAtOnce refuses the second, which does not disturb the first;
// and after that there is one again.
func TestRehearseTwoAtOnce(t *testing.T) {
	goOn := make(chan struct{})
	_, c := rehearsing(t, func(_ context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
		tell("begun")
		<-goOn
		return &proxy.Rehearsal{ID: req.Sandbox}, nil
	})
	begun, first := make(chan struct{}), make(chan error, 1)
	go func() {
		r, err := c.Rehearse(t.Context(), asked, func(string) { close(begun) })
		if err == nil && r.ID != "aa" {
			err = errors.New("it is " + r.ID)
		}
		first <- err
	}()
	<-begun
	if _, err := c.Rehearse(t.Context(), asked, func(string) {}); err == nil || err.Error() != "another rehearsal is under way" {
		t.Errorf("the second: %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
	if _, err := c.Rehearse(t.Context(), asked, func(string) {}); err != nil {
		t.Errorf("the third: %v", err)
	}
}

// TestRehearseCancelled: who goes away ends the rehearsal.
func TestRehearseCancelled(t *testing.T) {
	ended := make(chan error, 1)
	_, c := rehearsing(t, func(ctx context.Context, _ proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
		tell("begun")
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Rehearse(ctx, asked, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the rehearsal: %v", err)
	}
}

// TestRehearseEndsWithTheDaemon: an answer that is cut off is no report.
func TestRehearseEndsWithTheDaemon(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	s, c := rehearsing(t, func(_ context.Context, _ proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
		tell("begun")
		<-goOn
		return &proxy.Rehearsal{ID: "x"}, nil
	})
	go func() {
		<-begun
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		close(goOn)
	}()
	r, err := c.Rehearse(t.Context(), asked, func(string) { close(begun) })
	if r != nil || err == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzReadRehearsal reads anything as an answer: a report or an error, not both
// and not neither.
func FuzzReadRehearsal(f *testing.F) {
	f.Add([]byte("{\"progress\":\"x\"}\n{\"report\":{\"id\":\"1\"}}\n"))
	f.Add([]byte("{\"error\":\"no\"}"))
	f.Add([]byte("{}{}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		r, err := readRehearsal(bytes.NewReader(answer), func(words string) {
			if words == "" {
				t.Error("no words are told")
			}
		})
		if (r == nil) == (err == nil) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
