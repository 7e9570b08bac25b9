package cni

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// slow begins, and takes a moment, or for ever where a file tells it to.
const slow = `cat >/dev/null
at=$(dirname "$0")
[ "$CNI_COMMAND" = VERSION ] && exit 0
touch "$at/began"
[ -e "$at/hang" ] && sleep 600
sleep 0.3
touch "$at/finished"
` + answer

// TestPluginsFinish: plugins whose caller goes away in the middle are let finish,
// for a while: one that was killed could leave what no later DEL finds, or what
// each fails at.
func TestPluginsFinish(t *testing.T) {
	t.Run("ADD", func(t *testing.T) {
		finishes(t, func(ctx context.Context, n *node, p *Plan) error {
			_, err := n.Add(ctx, p)
			return err
		})
	})
	t.Run("DEL", func(t *testing.T) {
		finishes(t, func(ctx context.Context, n *node, p *Plan) error { return n.Del(ctx, p, "") })
	})
}

func finishes(t *testing.T, do func(context.Context, *node, *Plan) error) {
	for _, hangs := range []bool{false, true} {
		n, p := planned(t, slow)
		n.grace = time.Minute
		if hangs {
			n.grace = 10 * time.Millisecond
			must(t, os.WriteFile(filepath.Join(n.bin, "hang"), nil, 0o600))
		}
		made := func(name string) bool {
			_, err := os.Stat(filepath.Join(n.bin, name))
			return err == nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			eventually(t, "the plugin to begin", func() bool { return made("began") })
			cancel()
		}()
		err := do(ctx, n, p)
		if hangs != errors.Is(err, context.Canceled) || !hangs && err != nil || made("finished") == hangs {
			t.Errorf("hangs %v: %v, finished %v", hangs, err, made("finished"))
		}
		eventually(t, "no process to work for the id", func() bool { return workers(p.ID()) == 0 })
		if err := do(ctx, n, p); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	}
}
