package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // what the sink sends
)

// logCollector tells which events arrive.
type logCollector struct {
	collogspb.UnimplementedLogsServiceServer
	names chan string
}

// Export implements the collector's service.
func (c *logCollector) Export(_ context.Context, r *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
	for _, rl := range r.GetResourceLogs() {
		for _, sl := range rl.GetScopeLogs() {
			for _, l := range sl.GetLogRecords() {
				c.names <- l.GetEventName()
			}
		}
	}
	return &collogspb.ExportLogsServiceResponse{}, nil
}

// TestServeShips runs the daemon with a sink: its own first event arrives.
func TestServeShips(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &logCollector{names: make(chan string, 1000)}
	g := grpc.NewServer()
	collogspb.RegisterLogsServiceServer(g, c)
	go g.Serve(l)
	t.Cleanup(g.Stop)

	n := newBareNode(t)
	config, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := strings.Replace(string(config), "  docker: {type: docker}\n", "  docker: {type: cri, endpoint: unix://"+dir+"/none.sock}\n", 1)
	text += fmt.Sprintf("listen: unix://%s/cri.sock\nsinks: [{type: otlp, endpoint: \"http://%s\"}]\n", dir, l.Addr())
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	root := newRoot()
	root.SetArgs([]string{"serve", "--config", n.config})
	var logged strings.Builder
	root.SetErr(&logged)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	select {
	case name := <-c.names:
		if name != "crimux.started" {
			t.Errorf("the first event is %s", name)
		}
	case <-time.After(time.Minute):
		t.Error("nothing arrives")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v\n%s", err, logged.String())
	}
}
