package lab

import (
	"fmt"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/crimux/crimux/backends/docker/infra"
)

// WebBody is what the web image answers to every GET of /.
const WebBody = "crimux lab\n"

const imagePath = "PATH=/bin:/sbin:/usr/bin"

// webCommand ends at once on SIGTERM: as process 1 of its container httpd alone would ignore it.
const webCommand = `trap 'exit 0' TERM INT; httpd -f -p "${PORT:-8080}" -h /www & wait`

// namedImage is an image and the name it has in the lab's registry.
type namedImage struct {
	name  string
	image v1.Image
}

// buildImages makes the images of the lab: the same bytes, and so the same digests, every time.
func buildImages(userland string) ([]namedImage, error) {
	base, err := userlandLayer(userland)
	if err != nil {
		return nil, err
	}
	www, err := filesLayer(tree{dirs: []string{"www"}, files: []treeFile{{path: "www/index.html", mode: 0o644, data: []byte(WebBody)}}})
	if err != nil {
		return nil, err
	}
	specs := []struct {
		name   string
		config v1.Config
		layers []v1.Layer
	}{
		{"busybox", v1.Config{Env: []string{imagePath}, Cmd: []string{"sh"}}, []v1.Layer{base}},
		{"alt", v1.Config{Env: []string{imagePath, "ALT=1"}, Cmd: []string{"sh"}, User: "1000", WorkingDir: "/home"}, []v1.Layer{base}},
		{"web", v1.Config{
			Env: []string{imagePath}, Cmd: []string{"sh", "-c", webCommand},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		}, []v1.Layer{base, www}},
	}
	var out []namedImage
	for _, s := range specs {
		img, err := assemble(s.config, s.layers...)
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", s.name, err)
		}
		out = append(out, namedImage{s.name, img})
	}
	pause, err := infra.Image()
	if err != nil {
		return nil, fmt.Errorf("build the pause image: %w", err)
	}
	return append(out, namedImage{"pause", pause}), nil
}

func assemble(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = config
	return mutate.ConfigFile(img, file)
}
