package docker

import "sync"

// memoryKills are the containers that the Engine has reported out of memory.
// Engine 20.10 keeps such a report in the container's state only if it came
// before the end, and under load it comes after. The event is sent anyway.
type memoryKills struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func newMemoryKills() *memoryKills { return &memoryKills{ids: map[string]struct{}{}} }

func (k *memoryKills) note(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ids[id] = struct{}{}
}

func (k *memoryKills) has(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.ids[id]
	return ok
}

// forget lets go of a removed container.
func (k *memoryKills) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.ids, id)
}
