package lab

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tree is what goes into an image layer.
type tree struct {
	dirs  []string
	files []treeFile
	links [][2]string // new name, existing file: hard links
}

type treeFile struct {
	path string
	mode int64
	data []byte
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
user:x:1000:1000:user:/home:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
www-data:x:33:
user:x:1000:
nogroup:x:65534:
`

var userlandDirs = []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "var", "var/run"}

// userlandLayer packs the cached busybox with its libraries. The applets are hard links, not symbolic ones:
// then a container that masks one of them does not mask them all.
func userlandLayer(userland string) (v1.Layer, error) {
	t := tree{dirs: userlandDirs, files: []treeFile{
		{path: "etc/passwd", mode: 0o644, data: []byte(passwd)},
		{path: "etc/group", mode: 0o644, data: []byte(group)},
	}}
	err := filepath.WalkDir(filepath.Join(userland, "root"), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(userland, "root"), p)
		if err != nil {
			return err
		}
		t.files = append(t.files, treeFile{path: rel, mode: 0o755, data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the cached busybox: %w", err)
	}
	applets, err := os.ReadFile(filepath.Join(userland, "applets"))
	if err != nil {
		return nil, fmt.Errorf("read the cached busybox's applets: %w", err)
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			t.links = append(t.links, [2]string{"bin/" + a, "bin/busybox"})
		}
	}
	return filesLayer(t)
}

// filesLayer packs a tree; files bring the folders above them along.
func filesLayer(t tree) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := writeTree(w, t); err != nil {
		return nil, fmt.Errorf("pack a layer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack a layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
}

func writeTree(w *tar.Writer, t tree) error {
	dirs := map[string]bool{}
	for _, d := range t.dirs {
		dirs[d] = true
	}
	for _, f := range t.files {
		for d := filepath.Dir(f.path); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	sorted := make([]string, 0, len(dirs))
	for d := range dirs {
		sorted = append(sorted, d)
	}
	sort.Strings(sorted)
	for _, d := range sorted {
		mode := int64(0o755)
		if d == "tmp" {
			mode = 0o1777
		}
		if err := w.WriteHeader(header(tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: mode})); err != nil {
			return err
		}
	}
	for _, f := range t.files {
		if err := w.WriteHeader(header(tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data))})); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	for _, l := range t.links {
		if err := w.WriteHeader(header(tar.Header{Typeflag: tar.TypeLink, Name: l[0], Linkname: l[1], Mode: 0o755})); err != nil {
			return err
		}
	}
	return nil
}

// header fixes what would otherwise differ from build to build.
func header(h tar.Header) *tar.Header {
	h.ModTime = time.Unix(0, 0)
	h.Format = tar.FormatPAX
	return &h
}
