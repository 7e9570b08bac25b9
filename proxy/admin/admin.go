// Package admin is how the crimux commands ask a running daemon, which holds
// the event log's lock. It hands out the log's records as they are stored,
// checksum and chain included, so that whoever asks folds and verifies them
// with the same code as from the file.
//
// It speaks HTTP on a unix socket that only root can open. The log is
//
//	GET /v1/records?from=SEQ[&follow=true]
//
// answers the records from SEQ on, each as 8 bytes of sequence number, 4
// bytes of length (both big-endian) and the stored value. With follow the
// answer does not end: what is appended later is sent as it comes.
//
//	POST /v1/forget[?dry=true]
//
// gives up what will never come back: the body is an Event of kind Forgotten
// with its backend, in protobuf's JSON form. The answer is 204, or 409 with
// the reason why not, which with dry is all there is to it.
//
//	GET /v1/state
//
// answers the state as it is now, the message State of
// store/eventpb/event.proto, without the data of steps: in time that does not
// grow with the log.
//
// Beside it, /debug/pprof/ is that of net/http/pprof, for whoever wonders
// what a daemon spends its time or memory on.
package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

const (
	recordsPath = "/v1/records"
	forgetPath  = "/v1/forget"
	statePath   = "/v1/state"
	// maxForget bounds what is read of a request to forget.
	maxForget = 4 << 20
)

// Log is the part of store.Log that is served.
type Log interface {
	Records(from uint64, fn func(store.Record) error) error
	Changed(after uint64) <-chan struct{}
	View(fn func(*store.State))
}

// Forgetter is the part of proxy.Server that is served.
type Forgetter interface {
	Forget(ctx context.Context, backend string, f *eventpb.Forgotten, dry bool) error
}

// Server serves a log on the admin socket.
type Server struct {
	log       Log
	forgetter Forgetter
	mux       *http.ServeMux
	http      *http.Server
}

// NewServer returns a server of log, and of what forgets.
func NewServer(log Log, f Forgetter) *Server {
	mux := http.NewServeMux()
	s := &Server{log: log, forgetter: f, mux: mux}
	mux.HandleFunc("GET "+recordsPath, s.records)
	mux.HandleFunc("POST "+forgetPath, s.forget)
	mux.HandleFunc("GET "+statePath, s.state)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return s
}

// Serve answers requests on l until Close. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// Close ends Serve and every answer under way.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) records(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseUint(r.FormValue("from"), 10, 64)
	if err != nil {
		http.Error(w, "from: not a sequence number", http.StatusBadRequest)
		return
	}
	follow := r.FormValue("follow") == "true"
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := s.send(r.Context(), w, from, follow); err != nil {
		// The answer has begun. Cutting it off is how its end is told from a
		// failure: the reader gets an unexpected EOF.
		panic(http.ErrAbortHandler)
	}
}

// send writes the records from from on; with follow, until ctx is done.
func (s *Server) send(ctx context.Context, w http.ResponseWriter, from uint64, follow bool) error {
	flush := http.NewResponseController(w).Flush
	for first := true; ; first = false {
		begin := from
		err := s.log.Records(from, func(r store.Record) error {
			from = r.Seq + 1
			return write(w, r)
		})
		if err != nil || !follow {
			return err
		}
		if from == begin && !first {
			// A log that has changed without having grown is closed.
			return store.ErrClosed
		}
		if err := flush(); err != nil {
			return err
		}
		select {
		case <-s.log.Changed(max(from, 1) - 1):
		case <-ctx.Done():
			return nil
		}
	}
}

// forget answers with a conflict where it is refused: whoever asked is told
// why and what to do.
func (s *Server) forget(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForget))
	e := new(eventpb.Event)
	if err == nil {
		err = protojson.Unmarshal(body, e)
	}
	if err == nil && (e.GetBackend() == "" || e.GetForgotten() == nil) {
		err = errors.New("it names no backend, or nothing to forget")
	}
	if err != nil {
		http.Error(w, "what to forget: "+err.Error(), http.StatusBadRequest)
		return
	}
	err = s.forgetter.Forget(r.Context(), e.GetBackend(), e.GetForgotten(), r.FormValue("dry") == "true")
	if err != nil {
		http.Error(w, status.Convert(err).Message(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// header is the length of what precedes each value.
const header = 8 + 4

func write(w http.ResponseWriter, r store.Record) error {
	b := make([]byte, 0, header+len(r.Value))
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Value)))
	_, err := w.Write(append(b, r.Value...))
	return err
}
