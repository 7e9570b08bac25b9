package proxy

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// Fields of an Image.
const (
	imageID      protowire.Number = 1
	imageTags    protowire.Number = 2
	imageDigests protowire.Number = 3
	imageSize    protowire.Number = 4
	imageSpec    protowire.Number = 7
	imagePinned  protowire.Number = 8
)

// mergeImages makes one list without duplicate ids, which the kubelet keys
// its image garbage collection by: names are united, an image that is pinned
// anywhere is pinned, and it takes up what all its copies do. Nothing else of
// an image is looked at, and a list without duplicates is not even copied.
func mergeImages(frames []*backends.Frame) ([]*backends.Frame, error) {
	seen := make(map[string]int) // id to place in images
	var images []wire.Message
	united := false
	var beside []byte // what newer runtimes say beside the images
	for _, f := range frames {
		wire.Message(f.Bytes()).Fields(func(fd wire.Field) bool {
			if fd.Num != 1 || fd.Type != protowire.BytesType {
				beside = append(beside, fd.Raw...)
				return true
			}
			img := wire.Message(fd.Value)
			id := img.String(imageID)
			at, twice := seen[id]
			if !twice {
				seen[id] = len(images)
				images = append(images, img)
				return true
			}
			united = true
			images[at] = unite(images[at], img)
			return true
		})
	}
	if !united {
		return frames, nil
	}
	var out []byte
	for _, img := range images {
		out = wire.AppendItem(out, 1, img)
	}
	out = append(out, beside...)
	for _, f := range frames {
		f.Free() // all of it is in out
	}
	return pieces(backends.NewFrame(out), pieceSize), nil
}

// unite adds to an image what another runtime says of it. Of a field that
// occurs twice the last occurrence counts.
func unite(a, b wire.Message) wire.Message {
	out := slices.Clone(a)
	for _, num := range []protowire.Number{imageTags, imageDigests} {
		have := texts(a, num)
		for _, name := range texts(b, num) {
			if !slices.Contains(have, name) {
				out = wire.AppendItem(out, num, []byte(name))
			}
		}
	}
	out = appendUint(out, imageSize, a.Uint(imageSize)+b.Uint(imageSize))
	if b.Uint(imagePinned) != 0 {
		out = appendUint(out, imagePinned, 1)
	}
	return out
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// texts are the values of a repeated string field.
func texts(m wire.Message, num protowire.Number) []string {
	var all []string
	m.Each(num, func(v wire.Message) bool { all = append(all, string(v)); return true })
	return all
}

// imageHandlers names the handlers that a backend says its images are of as
// the routes do. Most runtimes say none.
func (s *Server) imageHandlers(p *part) {
	if p.err != nil {
		return
	}
	named := func(_ listView, img wire.Message) wire.Message {
		own := img.At(imageSpec, imageHandler)
		if own == "" {
			return img
		}
		return img.With(s.frontHandler(p.member.Name(), own), imageSpec, imageHandler)
	}
	p.messages = changed(p.messages, func(f *backends.Frame) *backends.Frame { return s.rewriteItems(f, named) })
}

// frontHandler is a handler of the routes that reaches that handler of a
// backend; "" where none does but being the default.
func (s *Server) frontHandler(backend, own string) string {
	for _, front := range s.config.FrontHandlers(backend, own) {
		if front != "" {
			return front
		}
	}
	return ""
}
