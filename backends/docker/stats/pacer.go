package stats

import (
	"context"
	"time"
)

const (
	// duty is how much longer than it works a pacer rests: 5% of the time go
	// into work.
	duty = 19
	// stretch is for how long it works before it rests.
	stretch = 5 * time.Millisecond
)

// pacer keeps work in the background to a small part of the time.
type pacer struct {
	now   func() time.Time
	sleep func(context.Context, time.Duration) error
	began time.Time
	// done is the work before began.
	done time.Duration
}

func newPacer() *pacer {
	return &pacer{now: time.Now, sleep: pause, began: time.Now()}
}

// step is called often while there is work to do, and rests when it is time.
func (p *pacer) step(ctx context.Context) error {
	if p.now().Sub(p.began) < stretch {
		return ctx.Err()
	}
	return p.rest(ctx)
}

// rest rests for what was worked since the last time.
func (p *pacer) rest(ctx context.Context) error {
	worked := p.now().Sub(p.began)
	p.done += worked
	err := p.sleep(ctx, duty*worked)
	p.began = p.now()
	return err
}

// worked is for how long there was work so far.
func (p *pacer) worked() time.Duration { return p.done + p.now().Sub(p.began) }

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
