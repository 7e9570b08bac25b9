package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/store/eventpb"
)

// keeper is a backend that cannot give back what one sandbox left.
type keeper struct {
	backends.Backend
	asked []string
}

func (*keeper) Name() string { return "a" }

func (k *keeper) Reclaim(_ context.Context, id string) error {
	k.asked = append(k.asked, id)
	if id == "stuck" {
		return errors.New("plugin failed")
	}
	return nil
}

// TestWhatVanishedIsReclaimed before it is forgotten: what cannot be given
// back now stays known, and is tried again.
func TestWhatVanishedIsReclaimed(t *testing.T) {
	k := &keeper{}
	o := &eventpb.Observed{GoneSandboxes: []string{"one", "stuck", "two"}}
	err := (&Server{}).reclaim(t.Context(), &backends.Member{Backend: k}, o)
	if err == nil || !strings.Contains(err.Error(), "stuck") || !strings.Contains(err.Error(), "plugin failed") {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(o.GoneSandboxes, []string{"one", "two"}) || len(k.asked) != 3 {
		t.Errorf("gone %q, asked %q", o.GoneSandboxes, k.asked)
	}
}
