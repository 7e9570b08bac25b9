package proxy

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// gen makes messages that are well-formed on the wire and nothing else: fields
// in any order and more often than they may be, strings that are no text,
// fields that nobody knows, empty messages.
type gen struct {
	*rand.Rand
	// ids are given to strings now and then.
	ids []string
}

// message makes a message of a type, or something near it.
func (g *gen) message(d protoreflect.MessageDescriptor, depth int) []byte {
	var fields [][]byte
	all := d.Fields()
	for i := range all.Len() {
		f := all.Get(i)
		for n := g.times(f); n > 0; n-- {
			fields = append(fields, g.field(f, depth))
		}
	}
	for g.IntN(4) == 0 {
		fields = append(fields, g.unknown())
	}
	if g.IntN(8) == 0 {
		g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	}
	return slices.Concat(fields...)
}

// times is how often a field occurs.
func (g *gen) times(f protoreflect.FieldDescriptor) int {
	switch n := g.IntN(32); {
	case n < 8:
		return 0
	case n == 8:
		return 2 // of a scalar the last counts
	case f.IsList() || f.IsMap():
		return 1 + g.IntN(3)
	}
	return 1
}

func (g *gen) field(f protoreflect.FieldDescriptor, depth int) []byte {
	if g.IntN(64) == 0 {
		return protowire.AppendVarint(protowire.AppendTag(nil, f.Number(), protowire.VarintType), g.Uint64())
	}
	switch f.Kind() {
	case protoreflect.MessageKind:
		var content []byte
		if depth > 0 && g.IntN(16) > 0 {
			content = g.message(f.Message(), depth-1)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, f.Number(), protowire.BytesType), content)
	case protoreflect.StringKind:
		return protowire.AppendBytes(protowire.AppendTag(nil, f.Number(), protowire.BytesType), []byte(g.text(f)))
	case protoreflect.BytesKind:
		return protowire.AppendBytes(protowire.AppendTag(nil, f.Number(), protowire.BytesType), g.bytes())
	case protoreflect.DoubleKind:
		return protowire.AppendFixed64(protowire.AppendTag(nil, f.Number(), protowire.Fixed64Type), g.Uint64())
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, f.Number(), protowire.VarintType), g.Uint64()>>g.IntN(64))
}

func (g *gen) bytes() []byte {
	b := make([]byte, g.IntN(24))
	if g.IntN(128) == 0 {
		b = make([]byte, 1<<16+g.IntN(1<<18)) // more than one of HTTP/2's frames
	}
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// text is a string that mostly is one.
func (g *gen) text(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Name() == "runtime_handler":
		return []string{"front-a", "front-b", "own-a", "", "nobody's"}[g.IntN(5)]
	case f.Name() == "id" && f.Parent().Name() == "Image":
		return []string{"sha256:1", "sha256:2", "sha256:3", "sha256:4", fmt.Sprint(g.Uint32())}[g.IntN(5)]
	case f.Name() == "name" && (f.Parent().Name() == "Metric" || f.Parent().Name() == "MetricDescriptor"):
		return fmt.Sprint("metric-", g.IntN(4))
	case f.Name() == "type" && f.Parent().Name() == "RuntimeCondition":
		return []string{"RuntimeReady", "NetworkReady", "Another"}[g.IntN(3)]
	case f.Name() == "label_keys":
		return fmt.Sprint("key-", g.IntN(4))
	case f.Name() == "mountpoint":
		return []string{"", "/nowhere/a", "/nowhere/b", "/nowhere/c"}[g.IntN(4)]
	case g.IntN(6) == 0 && (f.Number() == idField || f.Name() == "pod_sandbox_id"):
		return g.ids[g.IntN(len(g.ids))]
	case g.IntN(24) == 0:
		return string(g.bytes())
	}
	return fmt.Sprintf("text-%x", g.Uint64())
}

// unknown is a field that no message has yet: of any type, groups included,
// and with a tag longer than it must be.
func (g *gen) unknown() []byte {
	num := protowire.Number(1000 + g.IntN(1000))
	switch g.IntN(5) {
	case 0:
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), g.Uint64())
	case 1:
		return protowire.AppendFixed32(protowire.AppendTag(nil, num, protowire.Fixed32Type), g.Uint32())
	case 2:
		return protowire.AppendFixed64(protowire.AppendTag(nil, num, protowire.Fixed64Type), g.Uint64())
	case 3:
		return protowire.AppendGroup(protowire.AppendTag(nil, num, protowire.StartGroupType), num, g.flat())
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), g.bytes())
}

func (g *gen) flat() []byte {
	tag := binary.AppendUvarint(nil, 7<<3) // field 7, a varint
	tag[len(tag)-1] |= 0x80
	return append(tag, 0, 5)
}

// metadata is what a runtime may put beside an answer.
func (g *gen) metadata() metadata.MD {
	md := metadata.MD{}
	for range g.IntN(3) {
		if k := fmt.Sprintf("x-%d", g.IntN(4)); g.IntN(2) == 0 {
			md.Append(k+"-bin", string(binary.AppendUvarint(nil, g.Uint64())), "\x00\xff")
		} else {
			md.Append(k, fmt.Sprint(g.Uint32()), "and again")
		}
	}
	return md
}

// exchange is one case: a request and what each backend answers.
type exchange struct {
	method  string
	request []byte
	answers [2]scripted
	// images are what each backend says of the image that is to be removed.
	images [2]scripted
}

// exchange makes a case of a method.
func (g *gen) exchange(d *differ, full string, m protoreflect.MethodDescriptor) exchange {
	x := exchange{method: full, request: g.message(m.Input(), 4)}
	switch {
	case g.IntN(16) == 0:
	case methods[full].class == bySandbox:
		x.request = append(x.request, byID(pick(g, d.sandboxes))...)
	case methods[full].class == byContainer:
		x.request = append(x.request, byID(pick(g, d.containers))...)
	}
	for i := range x.answers {
		x.answers[i] = g.answer(m)
		x.images[i] = g.imageStatus()
		if len(d.raw) > 1 && m.Output().Fields().ByName("pod_metrics") != nil && g.IntN(4) > 0 {
			for j := range x.answers[i].frames {
				x.answers[i].frames[j] = g.podMetrics(keysOf(d.descriptors[i]))
			}
		}
	}
	return x
}

// imageStatus is what a backend says of an image: that it is there, is used by
// containers, is not there, or an error.
func (g *gen) imageStatus() scripted {
	there := func(num protowire.Number, name string) scripted {
		return scripted{frames: [][]byte{tagged(1, tagged(num, []byte(name)))}}
	}
	switch g.IntN(6) {
	case 0:
		return scripted{frames: [][]byte{nil}}
	case 1:
		return there(2, "busybox")
	case 2:
		return scripted{trailer: g.metadata(), st: someStatus(1+g.IntN(16), "of the image", g.bytes(), g.IntN(2) == 0)}
	}
	return there(1, "an-image")
}

// tagged is a field with a content.
func tagged(num protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), content)
}

// podMetrics is a list of metrics that mostly have as many labels as their
// runtime has announced.
func (g *gen) podMetrics(own map[string][]string) []byte {
	metrics := func(num protowire.Number) (b []byte) {
		for range g.IntN(4) {
			name := fmt.Sprint("metric-", g.IntN(5))
			fields := [][]byte{tagged(1, []byte(name)), protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), g.Uint64())}
			for i := range own[name] {
				fields = append(fields, tagged(4, fmt.Appendf(nil, "value-%d", i)))
			}
			if g.IntN(24) == 0 {
				fields = append(fields, tagged(4, []byte("one too many")))
			}
			for g.IntN(3) == 0 {
				fields = append(fields, g.unknown())
			}
			if g.IntN(24) == 0 {
				fields = append(fields, []byte("\x0a\xff"))
			}
			b = append(b, tagged(num, slices.Concat(fields...))...)
		}
		return b
	}
	var list []byte
	for range g.IntN(4) {
		pod := append(tagged(1, fmt.Append(nil, "pod-", g.IntN(100))), metrics(2)...)
		for range g.IntN(3) {
			pod = append(pod, tagged(3, append(tagged(1, []byte("container")), metrics(2)...))...)
		}
		list = append(list, tagged(1, append(pod, g.unknown()...))...)
		for g.IntN(4) == 0 {
			list = append(list, g.unknown()...)
		}
	}
	return list
}

func pick(g *gen, from map[string]known) string {
	ids := slices.Sorted(maps.Keys(from))
	return ids[g.IntN(len(ids))]
}

func (g *gen) answer(m protoreflect.MethodDescriptor) scripted {
	s := scripted{header: g.metadata(), trailer: g.metadata()}
	if g.IntN(4) == 0 {
		s.st = someStatus(1+g.IntN(18), g.text(m.Input().ParentFile().Messages().ByName("Image").Fields().ByNumber(2)), g.bytes(), g.IntN(2) == 0)
		if !m.IsStreamingServer() {
			return s
		}
	} else if !m.IsStreamingServer() {
		s.frames = [][]byte{g.message(m.Output(), 4)}
		return s
	}
	for range g.IntN(4) {
		s.frames = append(s.frames, g.message(m.Output(), 4))
	}
	return s
}
