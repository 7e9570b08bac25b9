package main

import (
	"fmt"
	"log/slog"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/backends/cri"
	"github.com/crimux/crimux/backends/docker"
	"github.com/crimux/crimux/cni"
	"github.com/crimux/crimux/policy"
)

// openBackends makes the backends of the configuration. None is contacted.
func openBackends(cfg *policy.Config, logger *slog.Logger) (*backends.Set, error) {
	var list []backends.Backend
	for _, b := range cfg.Backends {
		one, err := openBackend(b, logger)
		if err != nil {
			return nil, fmt.Errorf("backend %q: %w", b.Name, err)
		}
		list = append(list, one)
	}
	return backends.NewSet(backends.Probing{Interval: cfg.Health.ProbeInterval, DownAfter: cfg.Health.DownAfter, ListTimeout: cfg.Health.ListTimeout}, list...)
}

func openBackend(b policy.Backend, logger *slog.Logger) (backends.Backend, error) {
	switch b.Type {
	case policy.TypeCRI:
		return cri.New(b.Name, b.Endpoint)
	case policy.TypeDocker:
		return docker.New(docker.Options{
			Name:          b.Name,
			Endpoint:      b.Endpoint,
			PodInfraImage: b.PodInfraImage,
			CNI:           cni.Config{ConfDir: b.CNI.ConfDir, BinDirs: b.CNI.BinDirs, CacheDir: b.CNI.CacheDir},
			NetworkGC:     b.CNI.GC,
			StreamListen:  b.StreamListen,
			LogMaxSize:    b.Logs.MaxSize,
			LogMaxFiles:   b.Logs.MaxFiles,
			Logger:        logger,

			CheckpointDirs: b.CheckpointDirs,
		})
	}
	return nil, fmt.Errorf("type %q is not known", b.Type)
}
