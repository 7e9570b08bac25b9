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
}

func newPacer() *pacer {
	return &pacer{now: time.Now, sleep: pause, began: time.Now()}
}

// step is called often while there is work to do, and rests when it is time.
func (p *pacer) step(ctx context.Context) error {
	if p.now().Sub(p.began) < stretch {
		return ctx.Err()
	}
	return p.rest(ctx, 0)
}

// rest rests for what was worked since the last time, and no less than least.
func (p *pacer) rest(ctx context.Context, least time.Duration) error {
	err := p.sleep(ctx, max(least, duty*p.now().Sub(p.began)))
	p.began = p.now()
	return err
}

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
