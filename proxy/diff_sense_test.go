package proxy

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// What several backends' answers come to where their merging looks into them,
// worked out without package wire.

// checkSense compares the merged answer with what the shares come to.
func (d *differ) checkSense(t *testing.T, m *method, shares []share, got [][]byte) {
	t.Helper()
	var want [][]byte
	switch m.name {
	case "ImageFsInfo":
		merged, ok := mergedFs(shares)
		if !ok {
			return
		}
		want = [][]byte{merged}
	case "ListMetricDescriptors":
		want = [][]byte{d.mergedDescriptors(shares)}
	default:
		for _, s := range shares {
			own := keysOf(d.descriptors[s.backend])
			for _, f := range s.frames {
				want = append(want, laid(f, own, d.announced))
			}
		}
		if !m.streams {
			want = [][]byte{bytes.Join(want, nil)}
		}
	}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%s: crimux answers\n%x\nwant\n%x", m.name, got, want)
	}
}

// values are the contents of a field of a message, in order.
func values(b []byte, num protowire.Number) (all []string) {
	list, _ := fieldsOf(b)
	for _, f := range list {
		if f.num == num && f.typ == protowire.BytesType {
			all = append(all, string(f.value))
		}
	}
	return all
}

// split takes a message apart into the contents of one field and all else.
func split(b []byte, nums ...protowire.Number) (items map[protowire.Number][][]byte, others []byte) {
	items = map[protowire.Number][][]byte{}
	list, _ := fieldsOf(b)
	for _, f := range list {
		if f.typ == protowire.BytesType && slices.Contains(nums, f.num) {
			items[f.num] = append(items[f.num], f.value)
		} else {
			others = append(others, f.raw...)
		}
	}
	return items, others
}

// number is the varint in a field of a message in a field of b.
func number(b []byte, outer, inner protowire.Number) (n uint64) {
	list, _ := fieldsOf([]byte(strings.Join(values(b, outer), "")))
	for _, f := range list {
		if f.num == inner && f.typ == protowire.VarintType {
			_, _, tag := protowire.ConsumeTag(f.raw)
			n, _ = protowire.ConsumeVarint(f.raw[tag:])
		}
	}
	return n
}

// mergedFs is ImageFsInfo of the shares; ok is false where it depends on disks.
func mergedFs(shares []share) (merged []byte, ok bool) {
	if len(shares) == 1 {
		return shares[0].frames[0], true
	}
	type runtime struct {
		images, containers [][]byte
		others             []byte
		used               uint64
	}
	var all []runtime
	used := func(fs []byte) uint64 { return number(fs, 3, 1) }
	told := true
	for _, s := range shares {
		items, others := split(s.frames[0], 1, 2)
		r := runtime{images: items[1], containers: items[2], others: others}
		told = told && len(r.images) > 0
		for _, fs := range r.images {
			_, seen := diskFullness(at(fs, 2, 1))
			told = told && seen
			r.used = max(r.used, used(fs))
		}
		slices.SortStableFunc(r.images, func(a, b []byte) int { return cmp.Compare(used(b), used(a)) })
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b runtime) int { return cmp.Compare(b.used, a.used) })
	once := func(num protowire.Number, of func(runtime) [][]byte) {
		var list [][]byte
		for _, r := range all {
			for _, fs := range of(r) {
				place := slices.IndexFunc(list, func(have []byte) bool { return at(fs, 2, 1) != "" && at(have, 2, 1) == at(fs, 2, 1) })
				if place < 0 {
					list = append(list, fs)
				} else if used(fs) > used(list[place]) {
					list[place] = fs
				}
			}
		}
		for _, fs := range list {
			merged = append(merged, tagged(num, fs)...)
		}
	}
	once(1, func(r runtime) [][]byte { return r.images })
	once(2, func(r runtime) [][]byte { return r.containers })
	for _, r := range all {
		merged = append(merged, r.others...)
	}
	return merged, !told
}

// keysOf are the labels of descriptors by name. Of one that is there twice
// both count.
func keysOf(descriptors [][]byte) map[string][]string {
	keys := map[string][]string{}
	for _, b := range descriptors {
		name := at(b, 1)
		if _, twice := keys[name]; !twice {
			keys[name] = values(b, 3)
			continue
		}
		for _, k := range values(b, 3) {
			if !slices.Contains(keys[name], k) {
				keys[name] = append(keys[name], k)
			}
		}
	}
	return keys
}

// learn takes in what backends have said of their metrics.
func (d *differ) learn(shares []share) {
	if len(shares) == 0 {
		return
	}
	for _, s := range shares {
		items, _ := split(s.frames[0], 1)
		d.descriptors[s.backend] = items[1]
	}
	d.announced = map[string][]string{}
	for _, descriptors := range d.descriptors {
		for name, keys := range keysOf(descriptors) {
			for _, k := range keys {
				if !slices.Contains(d.announced[name], k) {
					d.announced[name] = append(d.announced[name], k)
				}
			}
		}
	}
}

// mergedDescriptors are the descriptors of both backends, the last ones of one
// that has not answered, each name once with the labels that any gives it.
func (d *differ) mergedDescriptors(shares []share) (merged []byte) {
	seen := map[string]bool{}
	for _, descriptors := range d.descriptors {
		for _, b := range descriptors {
			if name := at(b, 1); !seen[name] {
				seen[name] = true
				merged = append(merged, tagged(1, withValues(b, 3, d.announced[name]))...)
			}
		}
	}
	for _, s := range shares {
		_, others := split(s.frames[0], 1)
		merged = append(merged, others...)
	}
	return merged
}

// withValues is a message with other contents of a field, at its end; itself
// where they are the same or it is no message.
func withValues(b []byte, num protowire.Number, to []string) []byte {
	if _, ok := fieldsOf(b); !ok || slices.Equal(values(b, num), to) {
		return b
	}
	_, out := split(b, num)
	for _, v := range to {
		out = append(out, tagged(num, []byte(v))...)
	}
	return out
}

// laid is a list of pods' metrics with the labels that are announced, and
// itself where a metric in it has not the labels that its runtime said.
func laid(list []byte, own, announced map[string][]string) []byte {
	fits := true
	metric := func(b []byte) []byte {
		name := at(b, 1)
		keys, has := own[name]
		if !has || slices.Equal(keys, announced[name]) {
			return b
		}
		was := values(b, 4)
		if len(was) != len(keys) {
			fits = false
			return b
		}
		to := make([]string, len(announced[name]))
		for i, k := range announced[name] {
			if at := slices.Index(keys, k); at >= 0 {
				to[i] = was[at]
			}
		}
		return withValues(b, 4, to)
	}
	out := edited(list, 1, func(pod []byte) []byte {
		return edited(edited(pod, 2, metric), 3, func(c []byte) []byte { return edited(c, 2, metric) })
	})
	if !fits {
		return list
	}
	return out
}

// edited is a message with each content of a field changed by fn.
func edited(b []byte, num protowire.Number, fn func([]byte) []byte) (out []byte) {
	list, _ := fieldsOf(b)
	at := 0
	for _, f := range list {
		at += len(f.raw)
		if f.num == num && f.typ == protowire.BytesType {
			if to := fn(f.value); !bytes.Equal(to, f.value) {
				out = append(out, tagged(num, to)...)
				continue
			}
		}
		out = append(out, f.raw...)
	}
	return append(out, b[at:]...)
}

// checkRemoval compares the removal of an image from two backends.
func (d *differ) checkRemoval(t *testing.T, x exchange, asked [][]heard, direct []reply, through reply) {
	t.Helper()
	targets := []int{0, 1}
	if front := at(x.request, 1, 19); front != "" {
		k, _ := d.handler(front)
		targets = []int{k.backend}
	}
	var failed, removed, away *reply
	used := 0
	note := func(r *reply) {
		switch code := r.st.Code(); {
		case code == codes.FailedPrecondition:
			used++
		case code == codes.Unavailable && away == nil:
			away = r
		case code != codes.Unavailable && failed == nil:
			failed = r
		}
	}
	for i := range d.raw {
		img := x.images[i]
		there := slices.Contains(targets, i) && img.st == nil && has(img.frames[0], 1)
		inUse := there && at(img.frames[0], 1, 2) == "busybox"
		if want := map[bool]int{true: 1}[there && !inUse]; len(asked[i]) != want {
			t.Errorf("RemoveImage: backend %d was asked %d times, want %d", i, len(asked[i]), want)
		}
		switch {
		case !slices.Contains(targets, i):
		case img.st != nil:
			note(&reply{st: img.st})
		case inUse:
			used++
		case there && direct[i].st.Code() != codes.OK:
			note(&direct[i])
		case there && removed == nil:
			removed = &direct[i]
		}
	}
	switch {
	case failed != nil && failed.trailer == nil:
		// It is about the look-up, whose trailer it has.
		if !proto.Equal(failed.st.Proto(), through.st.Proto()) {
			t.Errorf("RemoveImage ends with %v, want %v", through.st, failed.st)
		}
	case failed != nil:
		d.checkOne(t, x, *failed, through, nil)
	case removed != nil:
		d.checkOne(t, x, *removed, through, nil)
	case used > 0:
		if through.st.Code() != codes.FailedPrecondition || !strings.Contains(through.st.Message(), "in use") {
			t.Errorf("RemoveImage of what is used ends with %v", through.st)
		}
	case away != nil:
		if !proto.Equal(away.st.Proto(), through.st.Proto()) {
			t.Errorf("RemoveImage ends with %v, want %v", through.st, away.st)
		}
	case through.st.Code() != codes.OK || len(through.frames) != 1 || len(through.frames[0]) > 0:
		t.Errorf("RemoveImage of what is nowhere: %v, %x", through.st, through.frames)
	}
}
