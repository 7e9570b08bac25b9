package docker

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// TestEngineOfAnotherVersion: an Engine that was upgraded may refuse the
// version that was settled on with the one before.
func TestEngineOfAnotherVersion(t *testing.T) {
	var only atomic.Value // the one version that the Engine speaks
	only.Store("1.41")
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version := only.Load().(string)
		w.Header().Set("Api-Version", version)
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			fmt.Fprint(w, "OK")
		case strings.HasPrefix(r.URL.Path, "/v"+version+"/"):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "[]")
		default:
			http.Error(w, `{"message":"client version is not supported"}`, http.StatusBadRequest)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	c, err := newLiveClient(client.WithHost("unix://" + socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := newNegotiation(c)
	for _, version := range []string{"1.41", "1.47", "1.44"} {
		only.Store(version)
		if err := n.again(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ContainerList(t.Context(), container.ListOptions{}); err != nil || c.ClientVersion() != version {
			t.Errorf("engine of API %s: settled on %s, %v", version, c.ClientVersion(), err)
		}
	}
}
