package docker

import (
	"maps"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestParseName(t *testing.T) {
	for name, want := range map[string]identity{
		"/k8s_POD_web_shop_u-1_0":             {pod: "web", namespace: "shop", uid: "u-1"},
		"k8s_POD_web_shop_u-1_3_0a1b2c3d":     {pod: "web", namespace: "shop", uid: "u-1", attempt: 3},
		"/k8s_main_web.a_shop_u-1_4294967295": {container: "main", pod: "web.a", namespace: "shop", uid: "u-1", attempt: 4294967295},
		"/k8s_main_web_shop_u-1_2_ffffffff":   {container: "main", pod: "web", namespace: "shop", uid: "u-1", attempt: 2},
	} {
		if got, ok := parseName(name); !ok || got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{
		"", "/", "web", "k8s_POD_web_shop_u-1", "k8s_POD_web_shop_u-1_x", "k8s_POD_web_shop_u-1_-1", "k8s_POD_web_shop_u-1_4294967296",
		"k9s_POD_web_shop_u-1_0", "k8s__web_shop_u-1_0", "k8s_POD_web_shop_u-1_0_xyz", "k8s_POD_a_b_c_d_0_0a1b2c3d",
	} {
		if got, ok := parseName(name); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("main", "web", "shop", "u-1", uint32(1))
	f.Add("", "a.b", "c", "d", uint32(0))
	f.Fuzz(func(t *testing.T, c, pod, namespace, uid string, attempt uint32) {
		id := identity{container: c, pod: pod, namespace: namespace, uid: uid, attempt: attempt}
		for _, p := range []string{pod, namespace, uid} {
			if checkPart("f", p) != nil {
				return
			}
		}
		if c != "" && (checkPart("f", c) != nil || c == sandboxPart) {
			return
		}
		if got, ok := parseName(id.name()); !ok || got != id {
			t.Errorf("%+v reads back as %+v, %v", id, got, ok)
		}
	})
}

// FuzzLabels: whatever a pod and its image bring along, what is ours stays
// ours, and what is the pod's comes back as it was or is refused.
func FuzzLabels(f *testing.F) {
	f.Add("app", "web", "note", "x", "maintainer", "me")
	f.Add("annotation.a", "web", "crimux.dev/op", "x", labelOp, "evil")
	f.Add("a", "b", "a", "b", "annotation.injected", "evil")
	f.Add("a", "b", "a", "b", labelForeign, `["crimux.dev/op"]`)
	f.Add("a", "b", "a", "b", labelLogPath, "/etc/passwd")
	f.Fuzz(func(t *testing.T, lk, lv, ak, av, ik, iv string) {
		if !utf8.ValidString(lk) || !utf8.ValidString(ak) || !utf8.ValidString(ik) {
			return // neither protobuf nor the Engine's JSON has such strings
		}
		labels, annotations, img := map[string]string{lk: lv}, map[string]string{ak: av}, map[string]string{ik: iv}
		own := map[string]string{labelType: typeContainer, labelSandboxID: "s", labelOp: "op"}
		written, err := encodeLabels(labels, annotations, own, img)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("error %v", err)
			}
			return
		}
		// As the Engine does: the image's labels below the container's.
		all := maps.Clone(img)
		maps.Copy(all, written)
		o, ok := decodeObject("/k8s_c_p_n_u_0", all)
		if !ok {
			t.Fatalf("unreadable: %v", all)
		}
		if !maps.Equal(o.labels, labels) || !maps.Equal(o.annotations, annotations) {
			t.Errorf("labels %v and annotations %v read back as %v and %v", labels, annotations, o.labels, o.annotations)
		}
		if o.op != "op" || o.sandboxID != "s" || o.logPath != "" || o.image != "" {
			t.Errorf("taken over: %+v", o)
		}
	})
}

// TestAdoptedLabels: what cri-dockerd wrote is read.
func TestAdoptedLabels(t *testing.T) {
	o, ok := decodeObject("/k8s_POD_web_shop_u-1_0", map[string]string{
		"io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD",
		"io.kubernetes.pod.name": "web", "app": "web", "annotation.kubernetes.io/config.source": "api",
	})
	if !ok || o.op != "" || len(o.labels) != 2 || o.annotations["kubernetes.io/config.source"] != "api" || o.createdAt(time.Unix(5, 7)) != 5e9+7 {
		t.Errorf("%+v, %v", o, ok)
	}
}
