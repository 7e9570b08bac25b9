package streaming

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	tokenBytes  = 16 // 128 bits
	tokenTTL    = time.Minute
	maxInFlight = 1000
)

// tokens are the sessions that were promised and not begun. The zero value is
// ready for use.
type tokens struct {
	mu  sync.Mutex
	all map[string]promise
	now func() time.Time // time.Now, but in tests
}

// promise is one session.
type promise struct {
	serve   http.HandlerFunc
	expires time.Time
}

// add stores a session and returns its token.
func (t *tokens) add(serve http.HandlerFunc) (string, error) {
	raw := make([]byte, tokenBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", status.Errorf(codes.Internal, "make a token: %v", err)
	}
	token := hex.EncodeToString(raw)

	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if len(t.all) >= maxInFlight {
		for k, p := range t.all {
			if now.After(p.expires) {
				delete(t.all, k)
			}
		}
	}
	if len(t.all) >= maxInFlight {
		return "", status.Errorf(codes.ResourceExhausted, "%d streaming sessions were asked for and not begun: wait a minute", maxInFlight)
	}
	if t.all == nil {
		t.all = map[string]promise{}
	}
	t.all[token] = promise{serve, now.Add(tokenTTL)}
	return token, nil
}

// take returns the session of a token, once and in time.
func (t *tokens) take(token string) (http.HandlerFunc, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.all[token]
	delete(t.all, token)
	if !ok || t.clock().After(p.expires) {
		return nil, false
	}
	return p.serve, true
}

// clock returns the time.
func (t *tokens) clock() time.Time {
	if t.now != nil {
		return t.now()
	}
	return time.Now()
}
