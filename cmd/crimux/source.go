package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy/admin"
	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// source is where a command reads the event log: the daemon while one runs,
// since it holds the file's lock, and else the file.
type source struct {
	// ctx is the command's.
	ctx context.Context
	log store.Source
	io.Closer
	// daemon is set where a daemon answers.
	daemon *admin.Client
	// noDaemon says why daemon is nil.
	noDaemon string
}

// openSource finds the log that the command's configuration names.
func openSource(c *cobra.Command) (*source, error) {
	cfg, err := policy.Load(configPath(c))
	if err != nil {
		return nil, err
	}
	path, named := policy.UnixPath(cfg.AdminListen)
	if !named {
		return openFile(c.Context(), cfg.StateDir, fmt.Sprintf("adminListen is %s, a socket that only the daemon is given: "+
			"to read from the daemon, set adminListen to unix:// and the path in the socket unit's ListenStream", cfg.AdminListen))
	}
	client, err := admin.Dial(c.Context(), path)
	switch {
	case err == nil:
		return &source{ctx: c.Context(), log: client, Closer: client, daemon: client}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return openFile(c.Context(), cfg.StateDir, "no daemon answers on "+path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: permission denied: the daemon's admin socket is root's: run as root", path)
	default:
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
}

// openFile opens the log's file, for want of a daemon.
func openFile(ctx context.Context, stateDir, noDaemon string) (*source, error) {
	path := filepath.Join(stateDir, store.FileName)
	r, err := store.OpenReadOnly(path)
	switch {
	case err == nil:
		return &source{ctx: ctx, log: r, Closer: r, noDaemon: noDaemon}, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: there is no event log: the daemon has not run with this configuration, "+
			"or stateDir is not the one that it uses (%s)", path, noDaemon)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: permission denied: the event log is root's: run as root", path)
	case errors.Is(err, store.ErrLocked):
		return nil, fmt.Errorf("%w: %s", err, noDaemon)
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("%s: it is a symbolic link, which is never followed: set stateDir to the folder that it leads to", path)
	default:
		return nil, pathed(path, err)
	}
}

// pathed puts the log's whole path before an error that may name its file only.
func pathed(path string, err error) error {
	var named *os.PathError
	if errors.As(err, &named) {
		return err
	}
	return fmt.Errorf("%s: %w", filepath.Dir(path), err)
}

// Records is [store.Source], and ends between two records when the command is
// interrupted.
func (s *source) Records(from uint64, fn func(store.Record) error) error {
	return s.log.Records(from, func(r store.Record) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		return fn(r)
	})
}

// walker verifies a log's records, which it must be given from the first on,
// and folds them.
type walker struct {
	chain store.Chain
	state *store.State
	// fn gets each event, with the state that those before it amount to,
	// which it must not keep.
	fn func(before *store.State, e *eventpb.Event) error
}

func newWalker(fn func(*store.State, *eventpb.Event) error) *walker {
	return &walker{state: store.NewState(), fn: fn}
}

func (w *walker) next(r store.Record) error {
	e, err := w.chain.Next(r)
	if err != nil {
		return damaged(err)
	}
	if err := w.fn(w.state, e); err != nil {
		return err
	}
	if err := w.state.Apply(e); err != nil {
		return damaged(err)
	}
	return nil
}

// damaged adds to an error about the log what to do.
func damaged(err error) error {
	return fmt.Errorf("%w: 'crimux verify' tells what of the log is sound", err)
}
