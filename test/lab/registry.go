package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// imageRegistry is an OCI registry inside this process, on a loopback port, over plain http.
type imageRegistry struct {
	addr string
	srv  *http.Server
	done chan error
}

func startRegistry() (*imageRegistry, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the lab's registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	r := &imageRegistry{
		addr: ln.Addr().String(),
		srv:  &http.Server{Handler: jsonErrors(registry.New(registry.Logger(quiet))), ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan error, 1),
	}
	go func() { r.done <- r.srv.Serve(ln) }()
	return r, nil
}

// jsonErrors says of the registry's errors that they are JSON, as real registries do: Engine 26 and up believes no
// other error.
func jsonErrors(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(errorWriter{w}, r) })
}

type errorWriter struct{ http.ResponseWriter }

// WriteHeader sets the type of an error's body.
func (w errorWriter) WriteHeader(code int) {
	if code >= http.StatusBadRequest {
		w.Header().Set("Content-Type", "application/json")
	}
	w.ResponseWriter.WriteHeader(code)
}

// ref names an image of this registry.
func (r *imageRegistry) ref(image string) string { return r.addr + "/" + image + ":1" }

// push stores the images and returns their digests.
func (r *imageRegistry) push(ctx context.Context, images []namedImage) (map[string]string, error) {
	digests := map[string]string{}
	for _, i := range images {
		ref, err := name.ParseReference(r.ref(i.name), name.Insecure)
		if err != nil {
			return nil, fmt.Errorf("name image %s: %w", i.name, err)
		}
		if err := remote.Write(ref, i.image, remote.WithContext(ctx)); err != nil {
			return nil, fmt.Errorf("push image %s to the lab's registry: %w", i.name, err)
		}
		d, err := i.image.Digest()
		if err != nil {
			return nil, fmt.Errorf("digest of image %s: %w", i.name, err)
		}
		digests[i.name] = d.String()
	}
	return digests, nil
}

func (r *imageRegistry) close() error {
	if r == nil {
		return nil
	}
	err := r.srv.Close()
	if serr := <-r.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	if err != nil {
		return fmt.Errorf("stop the lab's registry: %w", err)
	}
	return nil
}
