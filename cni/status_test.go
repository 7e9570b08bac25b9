package cni

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	newList = `{"cniVersion":"1.1.0","name":"new","plugins":[{"type":"main"},{"type":"chained"}]}`
	unready = `{"cniVersion":"1.1.0","code":50,"msg":"the agent is away","details":"start it"}`
)

// asked returns a node with a list of CNI 1.1 and logging plugins.
func asked(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.logger(t, "main", "chained")
	n.write(t, "10.conflist", newList)
	return n
}

// stale has the next Status want a new answer, of which age the last is then.
func (n *node) stale(age time.Duration) {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	n.status.last.at = time.Now().Add(-age)
}

// wantUnready checks that the plugins' objection is passed on.
func wantUnready(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrNoNetwork) {
		t.Fatalf("Status: %v", err)
	}
	for _, part := range []string{`network "new"`, "chained", "STATUS", "the agent is away; start it", "CNI error 50"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestStatusVerb(t *testing.T) {
	n := asked(t)
	must(t, n.Status(t.Context()))
	want := []string{"main STATUS", "chained STATUS"}
	if got := order(n.calls(t)); !reflect.DeepEqual(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
	must(t, n.Status(t.Context()))
	if got := order(n.calls(t)); len(got) != 2 {
		t.Errorf("asked again at once: %v", got)
	}
	n.says(t, "chained", "STATUS", script{Out: unready, Exit: 1})
	n.stale(answerFresh)
	wantUnready(t, n.Status(t.Context()))
	n.says(t, "chained", "STATUS", script{})
	wantUnready(t, n.Status(t.Context()))
	n.stale(answerFresh)
	must(t, n.Status(t.Context()))
	// Another configuration is another question.
	n.says(t, "chained", "STATUS", script{Out: unready, Exit: 1})
	n.write(t, "10.conflist", strings.Replace(newList, `"main"`, `"main","mtu":1400`, 1))
	wantUnready(t, n.Status(t.Context()))
	// ADDs are not refused for it.
	if got := n.network(); got != "new" {
		t.Errorf("network %s", got)
	}
}

// TestStatusVerbIsNotKnown: of older lists and older plugins nothing is asked.
func TestStatusVerbIsNotKnown(t *testing.T) {
	n := asked(t)
	for _, p := range []string{"main", "chained"} {
		n.says(t, p, "STATUS", script{Out: unready, Exit: 1})
	}
	n.write(t, "10.conflist", strings.Replace(newList, "1.1.0", "1.0.0", 1))
	must(t, n.Status(t.Context()))
	n.write(t, "10.conflist", newList)
	n.says(t, "chained", "VERSION", script{Out: `{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}`})
	n.says(t, "main", "STATUS", script{})
	must(t, n.Status(t.Context()))
	if got, want := order(n.calls(t)), []string{"main STATUS"}; !reflect.DeepEqual(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
}

// TestStatusVerbOffTheRequestPath: while Run runs, a new answer is fetched
// behind the last one, and a change is asked about by itself.
func TestStatusVerbOffTheRequestPath(t *testing.T) {
	n := asked(t)
	n.start(t)
	must(t, n.Status(t.Context()))
	n.says(t, "chained", "STATUS", script{Out: unready, Exit: 1})
	n.stale(answerFresh)
	must(t, n.Status(t.Context()))
	eventually(t, "the new answer", func() bool { return n.Status(t.Context()) != nil })
	wantUnready(t, n.Status(t.Context()))
	n.logger(t, "other")
	n.write(t, "10.conflist", strings.Replace(newList, "main", "other", 1))
	eventually(t, "the new list to be asked about", func() bool {
		calls := n.calls(t)
		return len(calls) > 1 && calls[len(calls)-2].Plugin == "other"
	})
}

// TestStatusVerbOfAHungPlugin: a plugin that does not answer holds nobody up,
// and is killed in the end.
func TestStatusVerbOfAHungPlugin(t *testing.T) {
	n := asked(t)
	must(t, n.Status(t.Context()))
	n.says(t, "main", "STATUS", script{Sleep: time.Hour})
	n.start(t)
	n.stale(answerFresh)
	must(t, n.Status(t.Context())) // the last answer still counts
	n.stale(answerOld)
	if err := n.Status(t.Context()); !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), "not answered STATUS yet") {
		t.Errorf("Status: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*answerBound)
	defer cancel()
	for {
		err := n.Status(ctx)
		if ctx.Err() != nil {
			t.Fatalf("the plugin was not killed: %v", err)
		}
		if errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "main: STATUS failed") {
			return
		}
		pause()
	}
}

func TestStatusEndsWithItsContext(t *testing.T) {
	n := asked(t)
	n.says(t, "main", "STATUS", script{Sleep: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Status(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoNetwork) {
		t.Errorf("Status: %v", err)
	}
	// That a caller went away is no answer.
	n.says(t, "main", "STATUS", script{})
	must(t, n.Status(t.Context()))
}
