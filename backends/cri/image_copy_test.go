package cri

import (
	"context"
	"testing"
)

// TestLeasesAreGivenBack when the copy was ended, too, and not for ever.
func TestLeasesAreGivenBack(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	end()
	asked := false
	err := letGo(over, func(ctx context.Context) error {
		asked = true
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may take for ever")
		}
		return ctx.Err()
	})
	if err != nil || !asked {
		t.Errorf("asked: %v, %v", asked, err)
	}
}
