package proxy

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// itemRewrite is what may change in one item of a list.
func (d *differ) itemRewrite(unary string, backend int, item []byte) *rewrite {
	switch methods[unary].name {
	case "ListPodSandbox":
		if k := d.sandboxes[at(item, 1)]; k.placed {
			return &rewrite{[]protowire.Number{7}, always(k.front)}
		}
	case "ListContainers":
		if k := d.sandboxes[at(item, 2)]; k.placed {
			return &rewrite{[]protowire.Number{4, 19}, onlyIfSet(k.front)}
		}
	case "ListImages":
		return &rewrite{[]protowire.Number{7, 19}, func(own string) string { return frontOf(backend, own) }}
	}
	return nil
}

// share is one backend's part of a merged list, as it should be.
type share struct {
	backend int
	fields  []rawField
	frames  [][]byte
	// lost is set where what is last known stands for it.
	lost bool
}

// sharing is what the backends' answers to a list come to.
type sharing struct {
	shares []share
	failed []reply
	// asked are the answers of all that were asked.
	asked []reply
	// beside is the first good answer.
	beside *reply
	// other is set where it is not the answers that count.
	other bool
}

// neverOmits tells of a list whether what a backend lacks is taken from the
// last known state.
func neverOmits(unary string) bool {
	return methods[unary].name == "ListPodSandbox" || methods[unary].name == "ListContainers"
}

// tells are the codes that say that the question was wrong, not that nobody
// was there to answer it.
var tells = []codes.Code{codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented}

func shared(unary string, streams bool, asked [][]heard, direct []reply) (all sharing) {
	for i, r := range direct {
		if len(asked[i]) == 0 {
			continue // it was not concerned, which concerned_test.go is about
		}
		all.asked = append(all.asked, r)
		fields, ok := fieldsOf(bytes.Join(r.frames, nil))
		for _, f := range r.frames {
			// Each message is to be one by itself.
			_, whole := fieldsOf(f)
			ok = ok && whole
		}
		code := r.st.Code()
		if code == codes.OK && !ok {
			code = codes.Unavailable
		}
		switch {
		case code == codes.Unimplemented && streams:
			all.other = true // the unary list stands in, which stream_test.go is about
		case code == codes.OK:
			all.shares = append(all.shares, share{i, fields, r.frames, false})
			if all.beside == nil {
				all.beside = &r
			}
		case neverOmits(unary) && !slices.Contains(tells, code):
			all.shares = append(all.shares, share{i, nil, nil, true})
		default:
			all.failed = append(all.failed, r)
		}
	}
	return all
}

// checkMerged compares a list with those of the backends.
func (d *differ) checkMerged(t *testing.T, x exchange, asked [][]heard, direct []reply, through reply) {
	t.Helper()
	m := methods[x.method]
	unary := x.method
	if m.unary != "" {
		unary = m.unary
	}
	all := shared(unary, m.streams, asked, direct)
	sense := len(d.raw) > 1 && mergedBySense[unary]
	if sense && m.name == "ListMetricDescriptors" {
		d.learn(all.shares)
	}
	switch {
	case all.other:
	case len(all.failed) > 0 && (neverOmits(unary) || len(all.shares) == 0):
		first := all.failed[0]
		at := slices.IndexFunc(all.failed, func(r reply) bool { return r.st.Code() != codes.Unimplemented })
		if !neverOmits(unary) && at > 0 {
			first = all.failed[at]
		}
		d.checkError(t, m, all, first, through)
	case through.st.Code() != codes.OK:
		t.Errorf("%s: crimux answers %v", m.name, through.st)
	default:
		if sense {
			d.checkSense(t, m, all.shares, through.frames)
		} else {
			d.checkShares(t, unary, all.shares, bytes.Join(through.frames, nil))
		}
		if m.streams && !sense {
			d.checkMessages(t, unary, all.shares, through.frames)
		}
		if all.beside != nil {
			all.beside.st = through.st
			d.checkBesideList(t, m, all, *all.beside, through)
		}
	}
}

// checkError compares how a list failed.
func (d *differ) checkError(t *testing.T, m *method, all sharing, direct, through reply) {
	t.Helper()
	if direct.st.Code() == codes.OK {
		// No message came: crimux says so.
		if through.st.Code() != codes.Unavailable {
			t.Errorf("%s: what is no message ends with %v", m.name, through.st)
		}
		return
	}
	if len(through.frames) > 0 {
		// What came before the end is not shown: there is no half a list.
		t.Errorf("%s ends with %v after %d messages", m.name, through.st, len(through.frames))
	}
	d.checkBesideList(t, m, all, direct, through)
}

// checkBesideList is checkBeside for a list. The header of a stream is that of
// whichever backend sent one first; with one there is no doubt.
func (d *differ) checkBesideList(t *testing.T, m *method, all sharing, direct, through reply) {
	t.Helper()
	if m.streams && len(all.asked) > 1 {
		began := slices.DeleteFunc(slices.Clone(all.asked), func(r reply) bool { return !r.began })
		at := slices.IndexFunc(began, func(r reply) bool { return sameMD(r.header, through.header) })
		if at < 0 && len(began) > 0 {
			t.Errorf("%s: crimux has the header %v, the backends %v", m.name, through.header, began)
		}
		if len(began) > 0 && !through.began {
			t.Errorf("%s: crimux sends no header, and a backend did", m.name)
		}
		direct.header = through.header
	} else if direct.began != through.began {
		t.Errorf("%s: a header before the end: through crimux %v, without %v", m.name, through.began, direct.began)
	}
	d.checkBeside(t, direct, through)
}

// checkMessages compares a streamed list message by message, where it is not
// made of what is last known and of no images that two runtimes have.
func (d *differ) checkMessages(t *testing.T, unary string, shares []share, got [][]byte) {
	t.Helper()
	if methods[unary].name == "ListImages" && len(shares) > 1 {
		return
	}
	count := 0
	for _, s := range shares {
		if s.lost {
			return
		}
		count += len(s.frames)
	}
	if count != len(got) {
		t.Errorf("%s: %d messages came through crimux, %d without", unary, len(got), count)
		return
	}
	for _, s := range shares {
		for i, f := range s.frames {
			fields, _ := fieldsOf(f)
			is, ok := fieldsOf(got[i])
			if !ok || len(is) != len(fields) {
				t.Errorf("%s: crimux sends\n%x\nfor the message\n%x", unary, got[i], f)
				return
			}
			d.checkShare(t, unary, share{s.backend, fields, nil, false}, is)
		}
		got = got[len(s.frames):]
	}
}

// checkShares compares a merged list item by item.
func (d *differ) checkShares(t *testing.T, unary string, shares []share, got []byte) {
	t.Helper()
	rest, ok := fieldsOf(got)
	if !ok {
		t.Errorf("%s: what crimux answers is no message: %x", unary, got)
		return
	}
	if methods[unary].name == "ListImages" && len(shares) > 1 {
		d.checkImages(t, shares, rest)
		return
	}
	for i, s := range shares {
		n := len(s.fields)
		if s.lost {
			n = len(rest)
			for _, later := range shares[i+1:] {
				if later.lost {
					return // where one ends and the other begins cannot be told
				}
				n -= len(later.fields)
			}
		}
		if n < 0 || n > len(rest) {
			t.Errorf("%s: crimux has %d fields for backend %d, want %d", unary, len(rest), s.backend, n)
			return
		}
		d.checkShare(t, unary, s, rest[:n])
		rest = rest[n:]
	}
	if len(rest) > 0 {
		t.Errorf("%s: crimux has %d items that no backend has", unary, len(rest))
	}
}

// checkShare compares one backend's part of a list. What is last known of a
// backend has nothing of the other in it.
func (d *differ) checkShare(t *testing.T, unary string, s share, got []rawField) {
	t.Helper()
	if s.lost {
		for _, f := range got {
			id := at(f.value, 1)
			if k, ok := d.sandboxes[id]; ok && k.backend != s.backend {
				t.Errorf("%s: %s is listed for backend %d", unary, id, s.backend)
			}
		}
		return
	}
	for i, f := range s.fields {
		g := got[i]
		switch {
		case f.num != 1 || f.typ != protowire.BytesType:
			if !bytes.Equal(f.raw, g.raw) {
				t.Errorf("%s: crimux has %x for %x", unary, g.raw, f.raw)
			}
		case g.num != 1 || !d.itemRewrite(unary, s.backend, f.value).allows(f.value, g.value):
			t.Errorf("%s: crimux has the item\n%x\nfor\n%x", unary, g.value, f.value)
		}
	}
}

// image is what several backends say of one image.
type image struct {
	first         []byte
	backend       int
	copies        int
	tags, digests map[string]bool
	size          uint64
	pinned        bool
	readable      bool
}

// checkImages compares a list of images without duplicates.
func (d *differ) checkImages(t *testing.T, shares []share, got []rawField) {
	t.Helper()
	var order []string
	var others [][]byte
	images := map[string]*image{}
	for _, s := range shares {
		for _, f := range s.fields {
			if f.num != 1 || f.typ != protowire.BytesType {
				others = append(others, f.raw)
				continue
			}
			id := at(f.value, 1)
			if images[id] == nil {
				order = append(order, id)
				images[id] = &image{first: f.value, backend: s.backend, tags: map[string]bool{}, digests: map[string]bool{}, readable: true}
			}
			images[id].add(f.value)
		}
	}
	for _, g := range got {
		if g.num != 1 || g.typ != protowire.BytesType {
			if len(others) == 0 || !bytes.Equal(others[0], g.raw) {
				t.Errorf("ListImages: crimux has the field %x", g.raw)
				return
			}
			others = others[1:]
			continue
		}
		if len(order) == 0 {
			t.Errorf("ListImages: crimux has an image too many: %x", g.value)
			return
		}
		d.checkImage(t, images[order[0]], g.value)
		order = order[1:]
	}
	if len(order)+len(others) > 0 {
		t.Errorf("ListImages: %d images and %d other fields are missing", len(order), len(others))
	}
}

func (im *image) add(b []byte) {
	fields, ok := fieldsOf(b)
	im.readable = im.readable && ok
	im.copies++
	var size, pinned uint64
	for _, f := range fields {
		_, _, tag := protowire.ConsumeTag(f.raw)
		v, _ := protowire.ConsumeVarint(f.raw[tag:])
		switch {
		case f.num == 2 && f.typ == protowire.BytesType:
			im.tags[string(f.value)] = true
		case f.num == 3 && f.typ == protowire.BytesType:
			im.digests[string(f.value)] = true
		case f.num == 4 && f.typ == protowire.VarintType:
			size = v
		case f.num == 8 && f.typ == protowire.VarintType:
			pinned = v
		}
	}
	im.size += size
	im.pinned = im.pinned || pinned != 0
}

// checkImage compares one image: an only copy as any item, of several what all
// of them say.
func (d *differ) checkImage(t *testing.T, want *image, got []byte) {
	t.Helper()
	if want.copies == 1 {
		if !d.itemRewrite("/runtime.v1.ImageService/ListImages", want.backend, want.first).allows(want.first, got) {
			t.Errorf("ListImages: crimux has the image\n%x\nfor\n%x", got, want.first)
		}
		return
	}
	if !want.readable {
		return
	}
	is := &image{tags: map[string]bool{}, digests: map[string]bool{}, readable: true}
	is.add(got)
	if at(got, 1) != at(want.first, 1) || !maps.Equal(is.tags, want.tags) || !maps.Equal(is.digests, want.digests) || is.size != want.size || is.pinned != want.pinned {
		t.Errorf("ListImages: crimux unites %d copies as %+v, want %+v", want.copies, is, want)
	}
}
