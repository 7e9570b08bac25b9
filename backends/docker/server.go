package docker

import (
	"log/slog"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crimux/crimux/backends/docker/streaming"
)

// server is the CRI services over one Engine. A method that it does not have
// answers Unimplemented with its name.
type server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	endpoint string
	engine   engine
	api      *negotiation
	cache    *cache
	events   *containerEvents
	log      *slog.Logger
	gaps     *logGaps
	logs     *containerLogs
	memory   *memoryKills
	pointed  *pointedAt
	streams  *streaming.Server
	pods     *attachments
	collect  bool // CollectNetworks does something
	infra    *infraImage
	ops      *operations
	leaving  *departures
	late     *lateStarts
	locks    *keyLocks
	node     nodeOptions
	stats    *nodeStats

	imageUsers imageUsers

	facts atomic.Pointer[facts]
	fs    atomic.Pointer[fsUsage]
}

var (
	_ runtimeapi.RuntimeServiceServer = (*server)(nil)
	_ runtimeapi.ImageServiceServer   = (*server)(nil)
)
