package backends

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// MaxMessage is the largest message that is received or sent, either way: the
// limit of the kubelet's own client.
const MaxMessage = 16 << 20

// Frame is one serialized message. Its bytes must not be changed. A frame may
// be read from several goroutines; Free must be the last use.
type Frame struct {
	data mem.BufferSlice
	once sync.Once
	flat []byte
}

// NewFrame returns a frame over b, which it keeps and does not copy.
func NewFrame(b []byte) *Frame {
	return &Frame{data: mem.BufferSlice{mem.SliceBuffer(b)}}
}

// Concat returns a frame that is the concatenation of the given ones, without
// copying. It takes them over: they must not be used or freed afterwards. The
// concatenation of two serialized answers of a repeated field is the merged
// answer, by protobuf's rules.
func Concat(frames ...*Frame) *Frame {
	if len(frames) == 1 {
		return frames[0]
	}
	c := new(Frame)
	for _, f := range frames {
		c.data = append(c.data, f.data...)
	}
	return c
}

// Len returns the length of the message.
func (f *Frame) Len() int { return f.data.Len() }

// Bytes returns the message in one piece. The first call copies where it is a
// concatenation; the bytes are valid until Free.
func (f *Frame) Bytes() []byte {
	f.once.Do(func() {
		if len(f.data) == 1 {
			f.flat = f.data[0].ReadOnlyData()
			return
		}
		f.flat = f.data.Materialize()
	})
	return f.flat
}

// Free gives the buffers back to where they came from. A frame that is never
// freed is collected as any other memory, only later.
func (f *Frame) Free() {
	f.data.Free()
	f.data = nil
}

// Codec is the gRPC codec that moves a *Frame as it is, so that what crimux
// does not know passes through it, and any other message as protobuf. It has
// no name: a client that forces a codec with one says so in the content type,
// where a kubelet's is application/grpc and nothing else, by which CRI-O tells
// its calls from others.
type Codec struct{ fallback encoding.CodecV2 }

// NewCodec returns a Codec.
func NewCodec() Codec { return Codec{fallback: encoding.GetCodecV2(proto.Name)} }

// Name implements [encoding.CodecV2].
func (Codec) Name() string { return "" }

// Marshal implements [encoding.CodecV2]. The frame stays the caller's.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return c.fallback.Marshal(v)
	}
	if f == nil {
		return nil, fmt.Errorf("marshal: nil frame")
	}
	f.data.Ref()
	// A copy of the slice header's array: gRPC may take the slice apart.
	return append(mem.BufferSlice(nil), f.data...), nil
}

// Unmarshal implements [encoding.CodecV2].
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return c.fallback.Unmarshal(data, v)
	}
	if len(data) > 1 {
		// What comes in pieces is a list, most likely, which is looked into: one
		// copy, in memory that is used again.
		f.data = mem.BufferSlice{data.MaterializeToBuffer(mem.DefaultBufferPool())}
		return nil
	}
	data.Ref()
	f.data = append(mem.BufferSlice(nil), data...)
	return nil
}
