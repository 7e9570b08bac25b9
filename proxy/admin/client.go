package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// maxRecord bounds what a client believes of a record's length.
const maxRecord = 64 << 20

// Client reads the log of a running daemon.
type Client struct {
	// ctx ends every request, since store.Source has no context of its own.
	ctx  context.Context
	http *http.Client
}

// Dial returns a client of the daemon whose admin socket is at path, and an
// error when none listens there: it wraps os.ErrNotExist or
// syscall.ECONNREFUSED. The client can be used until ctx is done.
func Dial(ctx context.Context, path string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	c, err := dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	return &Client{ctx, &http.Client{Transport: &http.Transport{DialContext: dial}}}, c.Close()
}

// Records calls fn for each record from from on, until the last one there is.
// It implements [store.Source].
func (c *Client) Records(from uint64, fn func(store.Record) error) error {
	return c.read(c.ctx, from, false, fn)
}

// Follow is Records, and then calls fn for each record that is appended,
// until ctx is done, which is no error, or the daemon ends.
func (c *Client) Follow(ctx context.Context, from uint64, fn func(store.Record) error) error {
	err := c.read(ctx, from, true, fn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ask sends a request, and returns the answer where it has the status wanted.
// What the daemon refuses comes as an error in its words.
func (c *Client) ask(ctx context.Context, method, path string, body []byte, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://crimux"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode == want {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusConflict {
		return nil, fmt.Errorf("ask the daemon: %s", resp.Status)
	}
	words, err := io.ReadAll(io.LimitReader(resp.Body, maxWords))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil, errors.New(strings.TrimSpace(string(words)))
}

// maxWords bounds an error message of the daemon's.
const maxWords = 1 << 16

// State returns the present state, without the data of steps.
func (c *Client) State(ctx context.Context) (*eventpb.State, error) {
	resp, err := c.ask(ctx, http.MethodGet, statePath, nil, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxState))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	m := &eventpb.State{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return m, nil
}

// maxState bounds what a client takes for a state.
const maxState = 1 << 30

// Forget has the daemon give up what will never come back. With dry it only
// tells whether the daemon would; a refusal is an error in its words.
func (c *Client) Forget(ctx context.Context, backend string, f *eventpb.Forgotten, dry bool) error {
	body, err := protojson.Marshal(&eventpb.Event{Backend: backend, Kind: &eventpb.Event_Forgotten{Forgotten: f}})
	if err != nil {
		return err
	}
	resp, err := c.ask(ctx, http.MethodPost, forgetPath+"?dry="+strconv.FormatBool(dry), body, http.StatusNoContent)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Close lets go of the connection.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func (c *Client) read(ctx context.Context, from uint64, follow bool, fn func(store.Record) error) error {
	path := recordsPath + "?from=" + strconv.FormatUint(from, 10) + "&follow=" + strconv.FormatBool(follow)
	resp, err := c.ask(ctx, http.MethodGet, path, nil, http.StatusOK)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := bufio.NewReaderSize(resp.Body, 1<<16)
	for {
		r, err := next(body)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		if err := fn(r); err != nil {
			return err
		}
	}
}

// next reads one record; io.EOF is the end of a whole answer.
func next(body io.Reader) (store.Record, error) {
	var h [header]byte
	if _, err := io.ReadFull(body, h[:]); err != nil {
		return store.Record{}, err
	}
	n := binary.BigEndian.Uint32(h[8:])
	if n > maxRecord {
		return store.Record{}, fmt.Errorf("a record of %d bytes", n)
	}
	r := store.Record{Seq: binary.BigEndian.Uint64(h[:8]), Value: make([]byte, n)}
	if _, err := io.ReadFull(body, r.Value); err != nil {
		return store.Record{}, io.ErrUnexpectedEOF
	}
	return r, nil
}
