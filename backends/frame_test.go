package backends

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCodecMovesFramesAndMessages(t *testing.T) {
	c := NewCodec()
	msg := &runtimeapi.VersionResponse{RuntimeName: "x"}
	wire, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	// A frame that arrives in several buffers.
	f := new(Frame)
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:1]), mem.SliceBuffer(wire[1:])}, f); err != nil {
		t.Fatal(err)
	}
	if f.Len() != len(wire) || !bytes.Equal(f.Bytes(), wire) {
		t.Errorf("the frame is %x, want %x", f.Bytes(), wire)
	}
	out, err := c.Marshal(f)
	if err != nil || !bytes.Equal(out.Materialize(), wire) {
		t.Errorf("it goes out as %x, %v", out.Materialize(), err)
	}
	got := new(runtimeapi.VersionResponse)
	if err := c.Unmarshal(out, got); err != nil || !proto.Equal(got, msg) {
		t.Errorf("another message is read as %v, %v", got, err)
	}
	if b, err := c.Marshal(msg); err != nil || !bytes.Equal(b.Materialize(), wire) {
		t.Errorf("another message goes out as %x, %v", b.Materialize(), err)
	}
}

func TestConcat(t *testing.T) {
	f := Concat(NewFrame([]byte("ab")), NewFrame(nil), NewFrame([]byte("c")))
	if f.Len() != 3 || string(f.Bytes()) != "abc" {
		t.Errorf("got %q", f.Bytes())
	}
	f.Free()
}
