package main

import (
	"context"
	"log/slog"

	group "github.com/oklog/run"

	"github.com/crimux/crimux/cmd/crimux/sink"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/store"
)

// openSinks makes the sinks of the configuration. None is contacted.
func openSinks(cfg *policy.Config, log *store.Log, logger *slog.Logger) ([]*sink.Sink, error) {
	var all []*sink.Sink
	for _, c := range cfg.Sinks {
		s, err := sink.New(context.Background(), c, sink.Options{
			Log: log, Dir: cfg.StateDir, Version: buildVersion(), Logger: logger,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// addSinks has the sinks ship until the group ends.
func addSinks(ctx context.Context, g *group.Group, sinks []*sink.Sink) {
	for _, s := range sinks {
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		g.Add(func() error { return s.Run(ctx) }, func(error) { stop() })
	}
}
