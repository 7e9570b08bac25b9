package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/policy"
	"github.com/crimux/crimux/proxy"
)

// askDriver bounds the wait for one backend's answer.
const askDriver = 3 * time.Second

// checkDrivers asks the backends for their cgroup drivers, says on w who does
// not answer, and returns those that differ from the default's: the daemon
// would give them no new pods.
func checkDrivers(ctx context.Context, cfg *policy.Config, w io.Writer) (differ []string, err error) {
	// The daemon may be running: its port for streams is not needed here.
	own := *cfg
	own.Backends = slices.Clone(cfg.Backends)
	for i := range own.Backends {
		own.Backends[i].StreamListen = ""
	}
	set, err := openBackends(&own, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer set.Close()
	drivers := askDrivers(ctx, set, w)
	node := drivers[cfg.Default]
	if node == "" {
		return nil, nil
	}
	for _, m := range set.All() {
		if of := drivers[m.Name()]; of != "" && of != node {
			differ = append(differ, fmt.Sprintf(
				"backends.%s: has cgroup driver %s, and the default, %s, has %s: a node has one, so configure both alike; until then no new pods are put on %s",
				m.Name(), of, cfg.Default, node, m.Name()))
		}
	}
	return differ, nil
}

// askDrivers returns the cgroup driver of each backend that tells it.
func askDrivers(ctx context.Context, set *backends.Set, w io.Writer) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, askDriver)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	drivers := make(map[string]string)
	for _, m := range set.All() {
		wg.Go(func() {
			driver, err := proxy.CgroupDriver(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				fmt.Fprintf(w, "backend %s: its cgroup driver is not known: %s\n", m.Name(), status.Convert(err).Message())
			case driver == "":
				fmt.Fprintf(w, "backend %s: it does not tell its cgroup driver\n", m.Name())
			}
			drivers[m.Name()] = driver
		})
	}
	wg.Wait()
	return drivers
}
