package docker

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestEngineWithoutContainerd: a command that no Engine could have started is
// told from one that cannot be.
func TestEngineWithoutContainerd(t *testing.T) {
	b := newBench(t)
	for version, want := range map[string]codes.Code{"1.6.20~ds1": codes.OK, "": codes.OK, versionUnknown: codes.Unavailable} {
		b.engine.containerd = version
		if err := b.reachesContainerd(t.Context(), "c"); status.Code(err) != want {
			t.Errorf("containerd %q: %v", version, err)
		}
	}
	b.fail("info", errInjected)
	if err := b.reachesContainerd(t.Context(), "c"); err == nil {
		t.Error("what is not known is no success")
	}
}
