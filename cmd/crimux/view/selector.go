package view

import (
	"strings"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// Selector selects pods, and their sandboxes and containers. The zero value
// selects everything.
type Selector struct {
	text, namespace, name string
	// within is the namespace that all must be in, "" for any.
	within string
}

// NewSelector reads what a person wrote to name a pod: its name, namespace and
// name with a slash between, its uid, or the id of a sandbox or container, with
// or without the runtime's name before it (docker://…, as kubectl shows it).
// Of uids and ids the beginning is enough.
func NewSelector(text string) Selector {
	if _, id, ok := strings.Cut(text, "://"); ok {
		text = id
	}
	s := Selector{text: text, name: text}
	if namespace, name, ok := strings.Cut(text, "/"); ok {
		s.namespace, s.name = namespace, name
	}
	return s
}

// In returns a selector of what s selects, as far as it is in a namespace; ""
// stands for all of them.
func (s Selector) In(namespace string) Selector {
	s.within = namespace
	return s
}

// all tells whether s selects everything.
func (s Selector) all() bool { return s.text == "" && s.within == "" }

// Selects tells whether an event, which came after the state before, is about
// anything that s selects.
func (s Selector) Selects(before *store.State, e *eventpb.Event) bool {
	return s.all() || len(s.of(objectsOf(before, e))) > 0
}

// match says how well something is named by a selector.
type match int

const (
	no match = iota
	// prefix: by the beginning of a uid or id.
	prefix
	exact
)

func (s Selector) match(o object) match {
	ids := [...]string{o.pod.GetUid(), o.sandboxID, o.containerID}
	switch {
	case s.within != "" && o.pod.GetNamespace() != s.within:
		return no
	case s.text == "", s.matchName(o):
		return exact
	}
	best := no
	for _, id := range ids {
		switch {
		case id == s.text:
			return exact
		case strings.HasPrefix(id, s.text):
			best = prefix
		}
	}
	return best
}

func (s Selector) matchName(o object) bool {
	return o.pod != nil && o.pod.GetName() == s.name && (s.namespace == "" || o.pod.GetNamespace() == s.namespace)
}

// of returns the objects that s selects.
func (s Selector) of(objects []object) []object {
	if s.all() {
		return objects
	}
	var selected []object
	for _, o := range objects {
		if s.match(o) != no {
			selected = append(selected, o)
		}
	}
	return selected
}
