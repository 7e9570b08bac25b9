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
)

// source is where a command reads events: the daemon while one runs, since it
// holds the log's lock, else the log's file, or an exported one.
type source struct {
	// ctx is the command's.
	ctx context.Context
	log store.Source
	io.Closer
	// daemon is set where a daemon answers.
	daemon *admin.Client
	// noDaemon says why daemon is nil.
	noDaemon string
	// export is the path of an exported file, and then log is nil.
	export   string
	progress *progress
}

// fileFlag is the flag of those commands that read exported files, too.
const fileFlag = "file"

// fileHelp documents the flag for the commands' help.
const fileHelp = `--file reads a file that 'crimux export' wrote, or a copy of an event log,
instead of this node's log: anywhere, without a configuration, a daemon or root.`

// addFile gives a command the flag.
func addFile(c *cobra.Command) {
	c.Flags().String(fileFlag, "", "read an exported `FILE` instead of this node's log")
	// It fails only for a flag that there is not.
	_ = c.MarkFlagFilename(fileFlag)
}

// openSource finds the events that the command line names.
func openSource(c *cobra.Command) (*source, error) {
	if f := c.Flag(fileFlag); f != nil && f.Changed {
		return openExport(c.Context(), f.Value.String())
	}
	return openLog(c.Context(), configPath(c))
}

// openLog finds the log that a configuration names.
func openLog(ctx context.Context, config string) (*source, error) {
	cfg, err := policy.Load(config)
	if err != nil {
		return nil, err
	}
	path, named := policy.UnixPath(cfg.AdminListen)
	if !named {
		return openFile(ctx, cfg.StateDir, fmt.Sprintf("adminListen is %s, a socket that only the daemon is given: "+
			"to read from the daemon, set adminListen to unix:// and the path in the socket unit's ListenStream", cfg.AdminListen))
	}
	client, err := admin.Dial(ctx, path)
	switch {
	case err == nil:
		return &source{ctx: ctx, log: client, Closer: client, daemon: client}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		src, err := openFile(ctx, cfg.StateDir, "no daemon answers on "+path)
		if err == nil {
			src.log.(*bursts).daemon = path
		}
		return src, err
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: permission denied: the daemon's admin socket is root's: run as root", path)
	default:
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
}

// openFile opens the log's file, for want of a daemon.
func openFile(ctx context.Context, stateDir, noDaemon string) (*source, error) {
	path := filepath.Join(stateDir, store.FileName)
	r, err := openBursts(ctx, path)
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

// openExport opens an exported file, or a copy of a log.
func openExport(ctx context.Context, path string) (*source, error) {
	const noDaemon = "a file is read, not the daemon"
	kind, err := firstByte(path)
	if err != nil {
		return nil, err
	}
	if kind == '{' {
		return &source{ctx: ctx, Closer: io.NopCloser(nil), noDaemon: noDaemon, export: path}, nil
	}
	r, err := openBursts(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%s: neither a file that 'crimux export' wrote nor an event log: %w", path, err)
	}
	return &source{ctx: ctx, log: r, Closer: r, noDaemon: noDaemon}, nil
}

func firstByte(path string) (byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	var b [1]byte
	_, err = f.Read(b[:])
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: it is empty", path)
	}
	return b[0], errors.Join(err, f.Close())
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
	s.progress.begin()
	defer s.progress.end()
	return s.log.Records(from, func(r store.Record) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		s.progress.one()
		return fn(r)
	})
}
