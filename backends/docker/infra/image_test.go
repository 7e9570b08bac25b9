package infra

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The ids of the images as released: they change only with the program, never
// with the machine or the day of the build. A change here is a new Reference.
var ids = map[string]string{
	"amd64": "sha256:b3b703b9d0598cc44bfce5af48e41c8ac6fa8a14de322502f4f0d7df1250259b",
	"arm64": "sha256:985e95682d071ab88e2767acc643f026b5207adbb67c1f67e85a15d3f4986739",
}

func TestImageIsTheSameEverywhere(t *testing.T) {
	for arch, want := range ids {
		img, err := ImageFor(arch)
		if err != nil {
			t.Fatal(err)
		}
		id, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		if id.String() != want {
			t.Errorf("%s: id %s, want %s: raise the tag of Reference when the image changes", arch, id, want)
		}
	}
	if _, err := ImageFor("riscv64"); err == nil {
		t.Error("an image for riscv64")
	}
}

func TestImageHoldsOneSmallFile(t *testing.T) {
	img, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers %d, %v", len(layers), err)
	}
	if size, err := layers[0].Size(); err != nil || size > 2048 {
		t.Errorf("layer of %d bytes, %v; want at most 2048", size, err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files := tar.NewReader(r)
	h, err := files.Next()
	if err != nil || h.Name != "pause" || h.Mode != 0o555 || h.Typeflag != tar.TypeReg {
		t.Errorf("first file %+v, %v", h, err)
	}
	if _, err := files.Next(); err != io.EOF {
		t.Errorf("a second file: %v", err)
	}
	c, err := img.ConfigFile()
	if err != nil || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/pause" || c.OS != "linux" {
		t.Errorf("config %+v, %v", c, err)
	}
}

func TestArchiveIsWhatTheEngineLoads(t *testing.T) {
	r, err := Archive()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(Reference)
	if err != nil {
		t.Fatal(err)
	}
	back, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, &ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	got, err1 := back.ConfigName()
	want, err2 := img.ConfigName()
	if err1 != nil || err2 != nil || got != want {
		t.Errorf("id in the archive %v (%v), want %v (%v)", got, err1, want, err2)
	}
	var manifest []struct{ RepoTags []string }
	files := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := files.Next()
		if err != nil {
			break
		}
		if h.Name == "manifest.json" {
			if err := json.NewDecoder(files).Decode(&manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) != 1 || manifest[0].RepoTags[0] != Reference {
		t.Errorf("manifest %+v", manifest)
	}
}
