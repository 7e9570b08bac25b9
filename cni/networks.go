package cni

import (
	"context"
	"errors"
)

var errStub = errors.New("not built yet")

// Networks attaches pods to the default network.
type Networks struct{}

// Plan is an Attachment pinned to a configuration list.
type Plan struct{}

// New returns the networks of a node.
func New(c Config) (*Networks, error) { return nil, errStub }

// ParsePlan reads what Marshal wrote.
func ParsePlan(b []byte) (*Plan, error) { return nil, errStub }

// Marshal returns the plan as JSON.
func (p *Plan) Marshal() ([]byte, error) { return nil, errStub }

// Status is nil when there is a usable default network.
func (n *Networks) Status() error { return errStub }

// Plan pins an attachment to today's default network.
func (n *Networks) Plan(a Attachment) (*Plan, error) { return nil, errStub }

// Add attaches; on an error the caller owes a Del.
func (n *Networks) Add(ctx context.Context, p *Plan) (Result, error) { return Result{}, errStub }

// Del detaches; it is idempotent.
func (n *Networks) Del(ctx context.Context, p *Plan, netns string) error { return errStub }

// Cached reads an attachment back from libcni's cache.
func (n *Networks) Cached(id string) (*Plan, Result, bool, error) { return nil, Result{}, false, errStub }

// Quiesce ends plugin processes that a crashed daemon left for id.
func (n *Networks) Quiesce(ctx context.Context, id string) error { return errStub }
