package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	group "github.com/oklog/run"
	"github.com/spf13/cobra"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/cmd/crimux/sink"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy"
	"github.com/crimux/crimux/proxy/admin"
	"github.com/crimux/crimux/proxy/socket"
	"github.com/crimux/crimux/store"
)

const (
	// criMode lets root and the socket's group in, adminMode root alone.
	criMode   = 0o660
	adminMode = 0o600
	// shutdownTime is how long calls under way have when the daemon is told
	// to end.
	shutdownTime = 10 * time.Second
)

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon that the kubelet talks to",
		Long: `Run the daemon that the kubelet talks to.

It listens where the configuration's "listen" says (unix:///path, or fd:// for
a socket passed on by systemd), sends each pod to the backend that its
RuntimeClass names, and records what happens in STATEDIR/events.db. Backends
may be down when it starts. SIGTERM and SIGINT end it; the pods stay.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := policy.Load(configPath(c))
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			return serve(c.Context(), cfg, logger)
		},
	}
}

// daemon is what serve puts together and takes apart.
type daemon struct {
	log      *store.Log
	set      *backends.Set
	server   *proxy.Server
	admin    *admin.Server
	sinks    []*sink.Sink
	cri, adm net.Listener
}

func serve(ctx context.Context, cfg *policy.Config, logger *slog.Logger) (err error) {
	d := new(daemon)
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(cfg, logger); err != nil {
		return err
	}
	logger.Info("serving", "version", buildVersion(), "cri", cfg.Listen, "admin", cfg.AdminListen, "stateDir", cfg.StateDir)
	err = d.run(ctx)
	if ctx.Err() != nil {
		logger.Info("ended", "reason", "signal")
		return nil
	}
	return err
}

// open brings everything up that can fail at once: the sockets first, since
// they tell whether another daemon is running.
func (d *daemon) open(cfg *policy.Config, logger *slog.Logger) (err error) {
	if d.cri, err = socket.Listen(cfg.Listen, criMode); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if d.adm, err = socket.Listen(cfg.AdminListen, adminMode); err != nil {
		return fmt.Errorf("adminListen: %w", err)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("stateDir: %w", err)
	}
	if d.log, err = openEvents(cfg, logger); err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	if d.set, err = openBackends(cfg, logger); err != nil {
		return err
	}
	d.server, err = proxy.New(proxy.Options{
		Config: cfg, Backends: d.set, Log: d.log, Version: buildVersion(), Logger: logger,
	})
	d.admin = admin.NewServer(d.log, d.server)
	d.admin.ServeRehearsals(d.server)
	if err != nil {
		return err
	}
	d.sinks, err = openSinks(cfg, d.log, logger)
	return err
}

// openEvents opens the event log, whatever state it is in: only one that another
// daemon holds, or that a newer crimux wrote, keeps this one from starting.
func openEvents(cfg *policy.Config, logger *slog.Logger) (*store.Log, error) {
	log, salvaged, err := store.OpenOrSalvage(filepath.Join(cfg.StateDir, store.FileName), store.Options{
		MaxSize:   cfg.Log.Bytes(),
		Retention: cfg.Log.Retention,
		Ballast:   store.DefaultBallast,
		OnFailure: func(err error) { logger.Error("the event log cannot be written", "error", err) },
		OnDamage: func(err error) {
			logger.Error("an old record of the event log is damaged; a stub takes its place", "error", err)
		},
		OnDropped: func(path string) {
			logger.Warn("an old damaged event log was removed, since only the newest are kept", "file", path, "kept", store.DamagedKept)
		},
	})
	if salvaged != nil {
		logger.Error("the event log was damaged; what is whole of it was kept, the rest is observed anew", "cause", salvaged.GetCause(),
			"kept", salvaged.GetKept(), "lost", salvaged.GetLost(), "file", salvaged.GetFile())
	}
	return log, err
}

// run works until ctx is done or a part fails; then all parts end.
func (d *daemon) run(ctx context.Context) error {
	var g group.Group
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The parts are ended in this order, each when the one before has: a call
	// under way needs its backend, and who asks what goes on, the log.
	g.Add(func() error { <-ctx.Done(); return ctx.Err() }, func(error) { cancel() })
	g.Add(func() error { return d.server.Serve(d.cri) }, func(error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		d.server.Shutdown(ctx)
	})
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	g.Add(func() error { return d.server.Run(work) }, func(error) { stopWork() })
	g.Add(func() error { return d.admin.Serve(d.adm) }, func(error) { d.admin.Close() })
	addSinks(ctx, &g, d.sinks)
	return g.Run()
}

// close lets go of what open opened, the log last.
func (d *daemon) close() error {
	var errs []error
	for _, l := range []net.Listener{d.cri, d.adm} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.set != nil {
		errs = append(errs, d.set.Close())
	}
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	return errors.Join(errs...)
}
