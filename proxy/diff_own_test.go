package proxy

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkOwn holds what crimux words itself against what must be so whatever the
// backends say.
func (d *differ) checkOwn(t *testing.T, m *method, asked [][]heard, direct []reply, through reply) {
	t.Helper()
	want := 1
	if m.name == "Version" {
		want = 0
	}
	for i := range asked {
		if len(asked[i]) != want {
			t.Errorf("%s: backend %d was asked %d times, want %d", m.name, i, len(asked[i]), want)
		}
	}
	switch m.name {
	case "Version":
		v := new(runtimeapi.VersionResponse)
		d.decoded(t, m, through, v)
		if v.RuntimeApiVersion != "v1" || v.RuntimeVersion != "test" || v.RuntimeName == "" {
			t.Errorf("the version is %v", v)
		}
	case "UpdateRuntimeConfig":
		d.checkTold(t, direct, through)
	case "Status":
		d.checkStatus(t, m, direct, through)
	}
}

// decoded reads an answer as a kubelet does.
func (d *differ) decoded(t *testing.T, m *method, r reply, into proto.Message) {
	t.Helper()
	if r.st.Code() != codes.OK || len(r.frames) != 1 {
		t.Errorf("%s: %v", m.name, r.st)
	} else if err := proto.Unmarshal(r.frames[0], into); err != nil {
		t.Errorf("%s cannot be read: %v", m.name, err)
	}
}

// checkTold: the first error that is one is the answer.
func (d *differ) checkTold(t *testing.T, direct []reply, through reply) {
	t.Helper()
	for _, r := range direct {
		if code := r.st.Code(); code != codes.OK && code != codes.Unimplemented {
			d.checkBeside(t, r, through)
			return
		}
	}
	if through.st.Code() != codes.OK || len(through.frames) != 1 || len(through.frames[0]) > 0 {
		t.Errorf("UpdateRuntimeConfig ends with %v, %x", through.st, through.frames)
	}
}

// checkStatus: the node is ready while one backend is, and each that is not
// well has a condition that says so; all the backends of a differ are routed.
func (d *differ) checkStatus(t *testing.T, m *method, direct []reply, through reply) {
	t.Helper()
	got := new(runtimeapi.StatusResponse)
	d.decoded(t, m, through, got)
	conditions := map[string]*runtimeapi.RuntimeCondition{}
	for _, c := range got.GetStatus().GetConditions() {
		conditions[c.Type] = c
	}
	want := map[string]bool{runtimeapi.RuntimeReady: false, runtimeapi.NetworkReady: false}
	for i, r := range direct {
		said, ready := new(runtimeapi.StatusResponse), map[string]bool{}
		if r.st.Code() == codes.OK && proto.Unmarshal(r.frames[0], said) == nil {
			for _, c := range said.GetStatus().GetConditions() {
				if _, twice := ready[c.Type]; !twice {
					ready[c.Type] = c.Status
				}
			}
			if unknown := said.ProtoReflect().GetUnknown(); i == 0 && !bytes.Equal(got.ProtoReflect().GetUnknown(), unknown) {
				t.Errorf("what the default says beside its status: %x, want %x", got.ProtoReflect().GetUnknown(), unknown)
			}
		}
		for name := range want {
			want[name] = want[name] || ready[name]
		}
		own := conditions["Backend/"+string(rune('a'+i))]
		switch {
		case own == nil:
			t.Errorf("no condition of backend %d: %v", i, got)
		case r.st.Code() != codes.OK && (own.Status || !strings.Contains(own.Message, valid(r.st.Message()))):
			t.Errorf("backend %d ends with %v, and its condition is %v", i, r.st, own)
		case own.Status && !(ready[runtimeapi.RuntimeReady] && ready[runtimeapi.NetworkReady]):
			t.Errorf("backend %d says %v, and its condition is %v", i, said, own)
		}
	}
	for name, is := range want {
		if c := conditions[name]; c == nil || c.Status != is {
			t.Errorf("%s is %v, want %v", name, c, is)
		}
	}
}
