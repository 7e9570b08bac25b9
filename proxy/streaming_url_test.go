package proxy

import (
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends"
)

// TestURLsOfSessions: they are the backend's, but for those that a kubelet
// since 1.36 cannot use.
func TestURLsOfSessions(t *testing.T) {
	for sent, want := range map[string]string{
		"http://127.0.0.1:1234/exec/token":  "http://127.0.0.1:1234/exec/token",
		"https://127.0.0.1:1234/exec/token": "https://127.0.0.1:1234/exec/token",
		"//[::]:35557/cri/exec/token":       "http://[::]:35557/cri/exec/token",
		"//127.0.0.1:80/exec/a?b=c":         "http://127.0.0.1:80/exec/a?b=c",
		"/cri/exec/token":                   "/cri/exec/token",
		"":                                  "",
	} {
		n := nodeOf(t, "", func(f *fakeRuntime, b backends.Backend) backends.Backend {
			return &answering{b, answers{
				"Exec":        says(&runtimeapi.ExecResponse{Url: sent}),
				"Attach":      says(&runtimeapi.AttachResponse{Url: sent}),
				"PortForward": says(&runtimeapi.PortForwardResponse{Url: sent}),
			}}
		})
		sb := n.run(t, "web", "front-b")
		ctr := n.create(t, sb, "c")
		got := map[string]string{}
		e, err := n.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: ctr, Cmd: []string{"sh"}, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		a, err := n.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: ctr, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: sb})
		if err != nil {
			t.Fatal(err)
		}
		got["Exec"], got["Attach"], got["PortForward"] = e.Url, a.Url, p.Url
		for method, url := range got {
			if url != want {
				t.Errorf("%s: %q for %q, want %q", method, url, sent, want)
			}
		}
		n.stop()
	}
	// What else is in the answer stays.
	sent, err := proto.Marshal(&runtimeapi.ExecResponse{Url: "//h:1/x"})
	if err != nil {
		t.Fatal(err)
	}
	unknown := []byte{0xf8, 0x07, 0x2a}
	got := absoluteURL(append(append([]byte(nil), unknown...), sent...))
	out := &runtimeapi.ExecResponse{}
	if err := proto.Unmarshal(got, out); err != nil || out.Url != "http://h:1/x" || string(out.ProtoReflect().GetUnknown()) != string(unknown) {
		t.Errorf("%x: %v", got, err)
	}
}
