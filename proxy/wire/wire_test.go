package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func marshal(t testing.TB, m proto.Message) Message {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadsWhatADecoderReads(t *testing.T) {
	m := marshal(t, &runtimeapi.RunPodSandboxRequest{
		RuntimeHandler: "kata",
		Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Uid: "u1", Namespace: "ns", Attempt: 3},
			Labels:   map[string]string{"a": "b", "c": ""},
		},
	})
	if got := m.String(2); got != "kata" {
		t.Errorf("runtime_handler = %q", got)
	}
	meta := m.Msg(1).Msg(1)
	if meta.String(1) != "web" || meta.String(2) != "u1" || meta.String(3) != "ns" || meta.Uint(4) != 3 {
		t.Errorf("metadata read as %q", meta)
	}
	if l := m.Msg(1).Map(6); len(l) != 2 || l["a"] != "b" {
		t.Errorf("labels = %v", l)
	}
	if m.Msg(9) != nil || m.String(9) != "" || m.Has(9) || !m.Has(2) {
		t.Error("an absent field is there, or a present one is not")
	}
}

func TestRepeatedOccurrences(t *testing.T) {
	// config.metadata.name = "a", then config.metadata.uid = "u": one message.
	part := func(num protowire.Number, v string) Message {
		return AppendItem(nil, 1, AppendItem(nil, 1, AppendItem(nil, num, []byte(v))))
	}
	m := append(part(1, "a"), part(2, "u")...)
	meta := m.Msg(1).Msg(1)
	if meta.String(1) != "a" || meta.String(2) != "u" {
		t.Errorf("parts of a sub-message are not merged: %q", meta)
	}
	m = append(AppendItem(nil, 2, []byte("first")), AppendItem(nil, 2, []byte("last"))...)
	if got := m.String(2); got != "last" {
		t.Errorf("of a repeated scalar %q counts, want the last", got)
	}
}

func TestWith(t *testing.T) {
	unknown := AppendItem(nil, 999, []byte("newer than us"))
	m := append(marshal(t, &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "busybox", RuntimeHandler: "front"},
		Auth:  &runtimeapi.AuthConfig{Username: "u"},
	}), unknown...)

	for _, want := range []string{"backend", "", "front"} {
		got := m.With(want, 1, 19)
		var req runtimeapi.PullImageRequest
		if err := proto.Unmarshal(got, &req); err != nil {
			t.Fatal(err)
		}
		if req.Image.RuntimeHandler != want || req.Image.Image != "busybox" || req.Auth.Username != "u" {
			t.Errorf("With(%q) gave %v", want, &req)
		}
		if !bytes.Contains(got, unknown) {
			t.Errorf("With(%q) lost an unknown field", want)
		}
	}
	if got := (Message{}).With("", 1, 19); len(got) != 0 {
		t.Errorf("removing what is absent made %q", got)
	}
	if got := (Message{}).With("h", 1, 19); got.Msg(1).String(19) != "h" {
		t.Errorf("a missing sub-message is not made: %q", got)
	}
}

// lastOf reads the last string of a number field by field, as far as a message
// is well-formed.
func lastOf(b []byte, num protowire.Number) (v []byte, valid bool) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeField(b)
		if size < 0 {
			return v, false
		}
		if n == num && typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			v, _ = protowire.ConsumeBytes(b[tag:])
		}
		b = b[size:]
	}
	return v, true
}

// FuzzMessage: whatever the bytes, reading ends, and setting a field is read
// back and leaves every other field alone.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(nil), "h")
	f.Add([]byte(marshal(f, &runtimeapi.RunPodSandboxRequest{RuntimeHandler: "x", Config: &runtimeapi.PodSandboxConfig{Hostname: "h"}})), "")
	f.Add([]byte{0x0a, 0xff, 0x01}, "v")
	f.Add([]byte{0x0b, 0x0c, 0x12, 0x00}, "v")
	f.Fuzz(func(t *testing.T, b []byte, v string) {
		m := Message(b)
		_, _, _, _ = m.String(1), m.Uint(2), m.Map(6), m.Msg(1).Msg(1)
		last, valid := lastOf(b, 1)
		if got := m.Bytes(1); !bytes.Equal(got, last) || (got == nil) != (last == nil) {
			t.Fatalf("field 1 is read as %q, want %q", got, last)
		}
		if (m.Valid() == nil) != valid {
			t.Fatalf("%x: %v, want valid %v", b, m.Valid(), valid)
		}
		if !valid {
			return
		}
		got := m.With(v, 2)
		if got.String(2) != v {
			t.Fatalf("set %q, read %q", v, got.String(2))
		}
		others := func(m Message) (out []byte) {
			m.Fields(func(f Field) bool {
				if f.Num != 2 {
					out = append(out, f.Raw...)
				}
				return true
			})
			return out
		}
		if !bytes.Equal(others(m), others(got)) {
			t.Fatal("another field was changed")
		}
	})
}
