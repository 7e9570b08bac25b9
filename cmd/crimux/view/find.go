package view

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// ErrNoPod says that the log has no pod of that name or id.
var ErrNoPod = errors.New("no such pod in the log")

// AmbiguousError says that several pods have uids or ids that begin alike.
type AmbiguousError struct {
	Text string
	Pods []FoundPod
}

// Error lists the pods, each on a line of its own.
func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q is the beginning of ids of %d pods; write more of it, or one of these uids:", e.Text, len(e.Pods))
	for _, p := range e.Pods {
		fmt.Fprintf(&b, "\n  %s  %s (last event %d, %s)", p.UID, clean(p.Namespace+"/"+p.Name), p.Last, Exact(p.LastTime))
	}
	return b.String()
}

// FoundPod is a pod that a log tells of.
type FoundPod struct {
	Namespace, Name, UID string
	// First and Last are the events that first and last name it.
	First, Last uint64
	LastTime    time.Time
}

// Finder looks for the pods that a selector selects. It must be given all
// events of a log.
type Finder struct {
	sel  Selector
	pods map[podKey]*foundPod
	// takenOut is how many events are not in the log any more.
	takenOut uint64
}

type foundPod struct {
	FoundPod
	by match
}

// podKey is what all attempts of one pod have in common.
type podKey struct{ namespace, name, uid string }

// keyOf returns the key of a pod. Pods without a uid, such as crictl makes,
// are told apart by their names; those of others are left out, so that a uid
// alone decides.
func keyOf(p *eventpb.PodKey) podKey {
	if p.GetUid() != "" {
		return podKey{uid: p.GetUid()}
	}
	return podKey{namespace: p.GetNamespace(), name: p.GetName()}
}

// NewFinder returns a finder of the pods that sel selects.
func NewFinder(sel Selector) *Finder {
	return &Finder{sel: sel, pods: make(map[podKey]*foundPod)}
}

// Add takes in an event that came after the state before.
func (f *Finder) Add(before *store.State, e *eventpb.Event) {
	f.takenOut += e.GetCompacted().GetCount()
	for _, o := range objectsOf(before, e) {
		if o.pod == nil {
			continue
		}
		p, by := f.pods[keyOf(o.pod)], f.sel.match(o)
		if p == nil {
			if by == no {
				continue
			}
			p = &foundPod{FoundPod: FoundPod{
				Namespace: o.pod.GetNamespace(), Name: o.pod.GetName(), UID: o.pod.GetUid(), First: e.GetSeq(),
			}}
			f.pods[keyOf(o.pod)] = p
		}
		p.by = max(p.by, by)
		p.Last, p.LastTime = e.GetSeq(), time.Unix(0, e.GetTime())
	}
}

// Pods returns the pods in the order in which the log came to know them: all
// that the selector names exactly, and else the one that has an id or uid with
// that beginning. Errors are ErrNoPod and *AmbiguousError.
func (f *Finder) Pods() ([]FoundPod, error) {
	var named, begun []FoundPod
	for _, p := range f.pods {
		if p.by == exact {
			named = append(named, p.FoundPod)
		} else {
			begun = append(begun, p.FoundPod)
		}
	}
	pods := named
	if len(pods) == 0 {
		pods = begun
	}
	slices.SortFunc(pods, func(a, b FoundPod) int { return cmp.Compare(a.First, b.First) })
	switch {
	case len(pods) == 0 && f.takenOut > 0:
		return nil, fmt.Errorf("%w, from which %s were taken out (log.retention, log.maxSize)", ErrNoPod, count(int(f.takenOut), "event"))
	case len(pods) == 0:
		return nil, ErrNoPod
	case len(named) == 0 && len(begun) > 1:
		return nil, &AmbiguousError{Text: f.sel.text, Pods: pods}
	}
	return pods, nil
}
