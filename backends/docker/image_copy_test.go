package docker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
)

func (e *fakeEngine) ImageSave(_ context.Context, ids []string, _ ...client.ImageSaveOption) (r io.ReadCloser, err error) {
	return r, e.call("save", func() error {
		r = io.NopCloser(strings.NewReader("archive of " + strings.Join(ids, " ")))
		return nil
	})
}

func (e *fakeEngine) ImageTag(_ context.Context, id, name string) error {
	return e.call("tag "+id+" "+name, func() error {
		e.images[name] = nil
		return nil
	})
}

const someID = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// TestExportImage: an image is exported by its id, whatever it was asked for
// by, so that the archive names nothing.
func TestExportImage(t *testing.T) {
	b := newBench(t)
	archive, info, err := b.backend.ExportImage(t.Context(), "busybox")
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(archive)
	if err != nil || archive.Close() != nil || string(content) != "archive of "+info.ID || info.ID == "" {
		t.Errorf("the archive is %q of %+v, %v", content, info, err)
	}
	if _, _, err := b.backend.ExportImage(t.Context(), "none"); status.Code(err) != codes.NotFound {
		t.Errorf("an image that is not there: %v", err)
	}
	b.fail("save", errInjected)
	if _, _, err := b.backend.ExportImage(t.Context(), "busybox"); !errors.Is(err, errInjected) && !strings.Contains(err.Error(), "injected") {
		t.Errorf("a failed export: %v", err)
	}
}

// TestImportImage: the copy gets the tags that nobody has; digests the Engine
// only takes from a registry.
func TestImportImage(t *testing.T) {
	b := newBench(t)
	info := backends.ImageInfo{ID: someID, Names: []string{"docker.io/library/busybox:latest", "reg.example/app:1", "reg.example/app@" + someID, "busybox"}}
	if err := b.backend.ImportImage(t.Context(), strings.NewReader("archive"), info); err != nil {
		t.Fatal(err)
	}
	got := slices.DeleteFunc(slices.Clone(b.trace.calls), func(c string) bool { return !strings.HasPrefix(c, "tag") })
	want := []string{"tag " + someID + " docker.io/library/busybox:latest", "tag " + someID + " reg.example/app:1"}
	if !slices.Equal(got, want) {
		t.Errorf("it named %q, want %q", got, want)
	}
	// What was loaded is not what was said.
	info.ID = "sha256:" + strings.Repeat("2", 64)
	if err := b.backend.ImportImage(t.Context(), strings.NewReader("archive"), info); status.Code(err) != codes.DataLoss {
		t.Errorf("an archive of another image: %v", err)
	}
	// An Engine that keeps images in a containerd has the manifest's digest.
	info.Digest = someID
	if err := b.backend.ImportImage(t.Context(), strings.NewReader("archive"), info); err != nil {
		t.Errorf("by its manifest: %v", err)
	}
	info.Names = []string{"UPPER case"}
	if err := b.backend.ImportImage(t.Context(), strings.NewReader("archive"), info); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a name that is none: %v", err)
	}
	b.fail("load", errInjected)
	if err := b.backend.ImportImage(t.Context(), strings.NewReader("archive"), info); err == nil || !strings.Contains(err.Error(), "injected") {
		t.Errorf("a failed load: %v", err)
	}
}
