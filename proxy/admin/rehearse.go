package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/proxy"
)

// A rehearsal is asked for with
//
//	POST /v1/rehearse
//
// and a body that is a proxy.RehearsalRequest in JSON. Where it is refused the
// answer is 409 with the reason. Otherwise it is JSON lines, each with one of
// "progress" (words), "report" (the proxy.Rehearsal, the last line) or "error"
// (why it could not be carried out, the last line). Who ends the request ends
// the rehearsal, which is undone all the same.
const rehearsePath = "/v1/rehearse"

// maxRehearse bounds what is read of a request to rehearse.
const maxRehearse = 4 << 20

// Rehearser is the part of proxy.Server that rehearses.
type Rehearser interface {
	Rehearse(ctx context.Context, req proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error)
}

// ServeRehearsals has s carry out rehearsals, too. It must be called before
// Serve.
func (s *Server) ServeRehearsals(r Rehearser) {
	s.mux.HandleFunc("POST "+rehearsePath, func(w http.ResponseWriter, req *http.Request) { rehearse(r, w, req) })
}

// rehearsalLine is one line of the answer.
type rehearsalLine struct {
	Progress string           `json:"progress,omitempty"`
	Report   *proxy.Rehearsal `json:"report,omitempty"`
	Error    string           `json:"error,omitempty"`
}

func rehearse(r Rehearser, w http.ResponseWriter, req *http.Request) {
	var what proxy.RehearsalRequest
	body := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxRehearse))
	body.DisallowUnknownFields()
	err := body.Decode(&what)
	if err == nil && body.More() {
		err = errors.New("more than one request")
	}
	if err != nil {
		http.Error(w, "what to rehearse: "+err.Error(), http.StatusBadRequest)
		return
	}
	begun := false
	line := func(l rehearsalLine) {
		if !begun {
			w.Header().Set("Content-Type", "application/jsonl")
			begun = true
		}
		// That nobody reads any more ends the request's context, and by it the
		// rehearsal.
		if json.NewEncoder(w).Encode(l) == nil {
			_ = http.NewResponseController(w).Flush()
		}
	}
	report, err := r.Rehearse(req.Context(), what, func(words string) { line(rehearsalLine{Progress: words}) })
	switch {
	case err == nil:
		line(rehearsalLine{Report: report})
	case begun:
		line(rehearsalLine{Error: status.Convert(err).Message()})
	default:
		http.Error(w, status.Convert(err).Message(), http.StatusConflict)
	}
}

// Rehearse has the daemon carry out a rehearsal. Progress is told while it goes
// on. The error says why it could not be carried out, in the daemon's words.
func (c *Client) Rehearse(ctx context.Context, what proxy.RehearsalRequest, tell func(string)) (*proxy.Rehearsal, error) {
	body, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	resp, err := c.ask(ctx, http.MethodPost, rehearsePath, body, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readRehearsal(resp.Body, tell)
}

// readRehearsal reads the lines of an answer.
func readRehearsal(body io.Reader, tell func(string)) (*proxy.Rehearsal, error) {
	lines := json.NewDecoder(bufio.NewReader(body))
	for {
		var l rehearsalLine
		err := lines.Decode(&l)
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the daemon has ended before the rehearsal had: what it made is removed when the daemon is started")
		case err != nil:
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		case l.Error != "":
			return nil, errors.New(l.Error)
		case l.Report != nil:
			return l.Report, nil
		case l.Progress != "":
			tell(l.Progress)
		}
	}
}
