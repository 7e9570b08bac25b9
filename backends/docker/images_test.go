package docker

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/infra"
)

func (e *fakeEngine) ImagePull(_ context.Context, ref string, o image.PullOptions) (r io.ReadCloser, err error) {
	return r, e.call("pull", func() error {
		e.auth = o.RegistryAuth
		if e.progress == "" {
			e.images[ref] = nil
		}
		r = io.NopCloser(strings.NewReader(e.progress))
		return nil
	})
}

func (e *fakeEngine) ImageLoad(_ context.Context, archive io.Reader, _ ...client.ImageLoadOption) (r image.LoadResponse, err error) {
	return r, e.call("load", func() error {
		n, err := io.Copy(io.Discard, archive)
		if n == 0 || err != nil {
			return errors.New("no archive")
		}
		e.images[infra.Reference] = nil
		r.Body = io.NopCloser(strings.NewReader("{}"))
		return nil
	})
}

func TestPullImage(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte("me:hunter2"))
	for _, c := range []struct {
		name     string
		auth     *runtimeapi.AuthConfig
		progress string
		before   error
		code     codes.Code
		want     registry.AuthConfig
	}{
		{name: "no auth", code: codes.OK},
		{name: "user", auth: &runtimeapi.AuthConfig{Username: "u", Password: "p", ServerAddress: "s"}, want: registry.AuthConfig{Username: "u", Password: "p", ServerAddress: "s"}},
		{name: "auth", auth: &runtimeapi.AuthConfig{Auth: secret}, want: registry.AuthConfig{Username: "me", Password: "hunter2"}},
		{name: "identity token", auth: &runtimeapi.AuthConfig{IdentityToken: "i"}, want: registry.AuthConfig{IdentityToken: "i"}},
		{name: "registry token", auth: &runtimeapi.AuthConfig{RegistryToken: "r"}, want: registry.AuthConfig{RegistryToken: "r"}},
		{name: "not base64", auth: &runtimeapi.AuthConfig{Auth: "hunter2"}, code: codes.InvalidArgument},
		{name: "error in the stream", progress: `{"status":"a"}{"errorDetail":{"code":401,"message":"no"},"error":"no"}`, code: codes.Unauthenticated},
		{name: "error without a code", progress: `{"status":"a"}{"errorDetail":{"message":"disk full"},"error":"disk full"}`, code: codes.Unknown},
		{name: "stream cut off", progress: `{"status":"a"}{"sta`, code: codes.Unknown},
		{name: "cancelled", before: context.Canceled, code: codes.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.engine.progress, b.engine.before["pull"] = c.progress, c.before
			r, err := b.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "reg.example/app"}, Auth: c.auth})
			if status.Code(err) != c.code {
				t.Fatalf("error %v, want %s", err, c.code)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hunter2") {
					t.Error("a secret is in the error")
				}
				return
			}
			if !strings.HasPrefix(r.ImageRef, "sha256:") {
				t.Errorf("image ref %q", r.ImageRef)
			}
			got, err := registry.DecodeAuthConfig(b.engine.auth)
			if err != nil || *got != c.want {
				t.Errorf("auth %+v, %v", got, err)
			}
		})
	}
}

// TestInfraImageFallsBack: one failed pull serves all pods for a while.
func TestInfraImageFallsBack(t *testing.T) {
	b := newBench(t)
	delete(b.engine.images, "pause")
	b.engine.before["pull"] = errors.New("no registry")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := b.infra.ensure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := strings.Join(b.trace.effects(), " "); got != "pull load" {
		t.Errorf("effects %q", got)
	}
	b.engine.mu.Lock()
	b.engine.images["pause"] = nil
	b.engine.mu.Unlock()
	if _, err := b.infra.ensure(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestInfraImageIsPulled(t *testing.T) {
	b := newBench(t)
	delete(b.engine.images, "pause")
	if _, err := b.infra.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.trace.effects(), " "); got != "pull" {
		t.Errorf("effects %q", got)
	}
}

func TestImageNames(t *testing.T) {
	id := "sha256:cafe" + strings.Repeat("0", 60)
	for ref, want := range map[string]bool{
		id: true, strings.TrimPrefix(id, "sha256:"): true, "cafe00000000": true, "cafe": true, "beef": false, "busybox": false, "sha256:": false,
	} {
		if got := isImageID(ref, id); got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
	if !shortID("cafe", image.InspectResponse{ID: id}) || shortID("cafe", image.InspectResponse{ID: id, RepoTags: []string{"cafe:latest"}}) || shortID("cafe00000000", image.InspectResponse{ID: id}) {
		t.Error("a name taken for an id")
	}
	for user, want := range map[string]string{"": "", "1000": "1000", "1000:5": "1000", "www": "www", "www:www": "www"} {
		uid, name := imageUser(user)
		if got := name; uid == nil && got != want || uid != nil && (name != "" || want != "1000") {
			t.Errorf("%q: %v %q", user, uid, name)
		}
	}
}
