package proxy

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// A metric of one name has one list of labels on a node, and runtimes differ
// in which labels they give it and in what order. So the union is announced,
// and what a runtime gives is laid out by it; what already lies so is left
// alone, byte for byte.

// Fields of the metrics' messages.
const (
	descriptorName   protowire.Number = 1
	descriptorLabels protowire.Number = 3

	podMetricItems      protowire.Number = 2
	podMetricContainers protowire.Number = 3
	containerMetricList protowire.Number = 2

	metricName   protowire.Number = 1
	metricLabels protowire.Number = 4
)

// announced are the label keys by metric as they were last given out. A client
// asks for them at its start and for values ever after: keys that appear
// since then are left out until it asks again.
type announced struct {
	mu   sync.Mutex
	keys map[string][]string
}

func (a *announced) get() map[string][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys
}

func (a *announced) set(keys map[string][]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = keys
}

// descriptorsOf takes a list of descriptors apart. They are copies: what they
// came in goes back to where it came from.
func descriptorsOf(list wire.Message) []wire.Message {
	all := []wire.Message{}
	list.Each(1, func(d wire.Message) bool {
		all = append(all, bytes.Clone(d))
		return true
	})
	return all
}

// besideItems is what is in a list beside its items.
func besideItems(list wire.Message) []byte {
	var beside []byte
	list.Fields(func(f wire.Field) bool {
		if f.Num != 1 || f.Type != protowire.BytesType {
			beside = append(beside, f.Raw...)
		}
		return true
	})
	return beside
}

// labelKeys are the label keys of descriptors by metric.
func labelKeys(all []wire.Message) map[string][]string {
	keys := make(map[string][]string, len(all))
	for _, d := range all {
		name, own := d.String(descriptorName), texts(d, descriptorLabels)
		have, twice := keys[name]
		if !twice {
			keys[name] = own
			continue
		}
		for _, k := range own {
			if !slices.Contains(have, k) {
				have = append(have, k)
			}
		}
		keys[name] = have
	}
	return keys
}

// mergeDescriptors is the union by name, and of the label keys of each name.
// For a backend that does not answer, what it gave before counts.
func (s *Server) mergeDescriptors(parts []part) (mergedList, error) {
	if len(s.set.All()) == 1 {
		return mergeAnswered(parts, asTheyAre)
	}
	answered := false
	var beside []byte // what newer runtimes say beside the descriptors
	for _, p := range parts {
		if p.err == nil {
			answered = true
			said := wire.Message(backends.Concat(p.messages...).Bytes())
			s.attendants[p.member.Name()].setDescriptors(descriptorsOf(said))
			beside = append(beside, besideItems(said)...)
		}
	}
	if !answered {
		return mergeAnswered(parts, asTheyAre)
	}
	union := s.unitedLabels()
	s.announced.set(union)
	done := make(map[string]bool)
	var out []byte
	for _, m := range s.set.All() {
		for _, d := range s.attendants[m.Name()].knownDescriptors() {
			if name := d.String(descriptorName); !done[name] {
				done[name] = true
				out = wire.AppendItem(out, 1, withTexts(d, descriptorLabels, union[name]))
			}
		}
	}
	return listOf([]*backends.Frame{backends.NewFrame(append(out, beside...))}, parts), nil
}

// unitedLabels unites what is known of all backends, in their order.
func (s *Server) unitedLabels() map[string][]string {
	united := make(map[string][]string)
	for _, m := range s.set.All() {
		for name, keys := range labelKeys(s.attendants[m.Name()].knownDescriptors()) {
			for _, k := range keys {
				if !slices.Contains(united[name], k) {
					united[name] = append(united[name], k)
				}
			}
		}
	}
	return united
}

// withTexts returns m with another list of strings in a field, and m itself
// where it is the same list, or m cannot be read to its end.
func withTexts(m wire.Message, num protowire.Number, values []string) wire.Message {
	if slices.Equal(texts(m, num), values) || m.Valid() != nil {
		return m
	}
	out := make(wire.Message, 0, len(m)+16)
	m.Fields(func(f wire.Field) bool {
		if f.Num != num || f.Type != protowire.BytesType {
			out = append(out, f.Raw...)
		}
		return true
	})
	for _, v := range values {
		out = wire.AppendItem(out, num, []byte(v))
	}
	return out
}

func (t *attendant) setDescriptors(all []wire.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.descriptors = all
}

func (t *attendant) knownDescriptors() []wire.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.descriptors
}

// askDescriptors asks the backend for its descriptors.
func (t *attendant) askDescriptors() {
	// Nobody's call: the answer is for all that follow.
	ctx, cancel := context.WithTimeout(context.Background(), attendBound)
	defer cancel()
	a, err := read(ctx, t.m, runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName, backends.NewFrame(nil))
	if err != nil {
		return
	}
	defer a.Body.Free()
	t.setDescriptors(descriptorsOf(a.Body.Bytes()))
}

// mergeMetrics lays each backend's values out by the labels as announced.
func (s *Server) mergeMetrics(parts []part) (mergedList, error) {
	if len(s.set.All()) == 1 {
		return mergeAnswered(parts, asTheyAre)
	}
	for _, p := range parts {
		if t := s.attendants[p.member.Name()]; p.err == nil && t.knownDescriptors() == nil {
			t.askDescriptors()
		}
	}
	want := s.announced.get()
	if want == nil {
		want = s.unitedLabels()
	}
	for i := range parts {
		p := &parts[i]
		if p.err != nil {
			continue
		}
		t := s.attendants[p.member.Name()]
		laid, ok := allLaidOut(p.messages, labelKeys(t.knownDescriptors()), want)
		if !ok {
			// The runtime has other labels than when it was asked.
			t.askDescriptors()
			laid, _ = allLaidOut(p.messages, labelKeys(t.knownDescriptors()), want)
		}
		p.messages = laid
	}
	return mergeAnswered(parts, asTheyAre)
}

// layout says where each of a metric's label values comes from: the index
// among the runtime's own, -1 for none.
type layout struct {
	own  int
	from []int
}

// layouts returns how the metrics that a runtime gives must be laid out, less
// those that lie right.
func layouts(own, want map[string][]string) map[string]layout {
	all := make(map[string]layout)
	for name, keys := range own {
		united, known := want[name]
		if !known || slices.Equal(keys, united) {
			continue
		}
		l := layout{own: len(keys)}
		for _, k := range united {
			l.from = append(l.from, slices.Index(keys, k))
		}
		all[name] = l
	}
	return all
}

// allLaidOut is laidOut for the messages of one runtime.
func allLaidOut(messages []*backends.Frame, own, want map[string][]string) (out []*backends.Frame, ok bool) {
	out, ok = make([]*backends.Frame, len(messages)), true
	for i, f := range messages {
		laid, fits := laidOut(f, own, want)
		out[i], ok = laid, ok && fits
	}
	return out, ok
}

// laidOut returns a list of pods' metrics with its label values laid out as
// wanted, f itself where they are; ok is false, and f is returned, where a
// metric that must be laid out has another number of values than own says.
func laidOut(f *backends.Frame, own, want map[string][]string) (out *backends.Frame, ok bool) {
	todo := layouts(own, want)
	if len(todo) == 0 {
		return f, true
	}
	ok = true
	metric := func(m wire.Message) wire.Message {
		l, differs := todo[m.String(metricName)]
		if !differs {
			return m
		}
		laid, fits := l.apply(m)
		ok = ok && fits
		return laid
	}
	list := wire.Message(f.Bytes()).Edit(1, func(pod wire.Message) wire.Message {
		return pod.Edit(podMetricItems, metric).Edit(podMetricContainers, func(c wire.Message) wire.Message {
			return c.Edit(containerMetricList, metric)
		})
	})
	if !ok || same(list, f.Bytes()) {
		return f, ok
	}
	return backends.NewFrame(list), true
}

// apply lays out the values of one metric.
func (l layout) apply(m wire.Message) (laid wire.Message, fits bool) {
	values := texts(m, metricLabels)
	if len(values) != l.own {
		return m, false
	}
	out := make([]string, len(l.from))
	for i, at := range l.from {
		if at >= 0 {
			out[i] = values[at]
		}
	}
	return withTexts(m, metricLabels, out), true
}
