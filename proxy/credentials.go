package proxy

import (
	"bytes"
	"container/list"
	"sync"
	"time"

	"github.com/crimux/crimux/proxy/wire"
)

const (
	// credentialsKept is how many pulls are remembered, credentialsAge how
	// long: a kubelet makes a container soon after its pull.
	credentialsKept = 512
	credentialsAge  = time.Hour
)

// credentials are what the pods' last pulls brought along, so that a pull on
// their behalf can be made again. They are in memory only, never in the log,
// a message or an error, and a pod's are used for that pod alone.
type credentials struct {
	mu sync.Mutex
	// byPull holds elements of order, whose front is the newest.
	byPull map[pullKey]*list.Element
	order  list.List
	// now is time.Now.
	now func() time.Time
}

// pullKey is one image as one pod has pulled it.
type pullKey struct{ uid, image string }

type pulled struct {
	key pullKey
	at  time.Time
	// auth is the request's AuthConfig, nil for one without.
	auth wire.Message
}

func newCredentials() *credentials {
	return &credentials{byPull: make(map[pullKey]*list.Element), now: time.Now}
}

// remember keeps a copy of auth.
func (c *credentials) remember(uid, image string, auth wire.Message) {
	if uid == "" || image == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := pullKey{uid, image}
	if e := c.byPull[key]; e != nil {
		c.drop(e)
	}
	c.byPull[key] = c.order.PushFront(&pulled{key: key, at: c.now(), auth: append(wire.Message(nil), auth...)})
	c.expire()
}

// of returns what the pod's last pull of the image brought; ok is false where
// none is remembered.
func (c *credentials) of(uid, image string) (auth wire.Message, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	e := c.byPull[pullKey{uid, image}]
	if e == nil {
		return nil, false
	}
	return bytes.Clone(e.Value.(*pulled).auth), true
}

// expire drops what is too old or too much. c.mu is held.
func (c *credentials) expire() {
	for e := c.order.Back(); e != nil; e = c.order.Back() {
		if c.order.Len() <= credentialsKept && c.now().Sub(e.Value.(*pulled).at) < credentialsAge {
			return
		}
		c.drop(e)
	}
}

func (c *credentials) drop(e *list.Element) {
	p := c.order.Remove(e).(*pulled)
	clear(p.auth)
	delete(c.byPull, p.key)
}
