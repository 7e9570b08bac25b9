package store

import "github.com/crimux/crimux/store/eventpb"

// forgotten takes out what the operator gave up. Only what is on the event's
// backend is: an id may by then belong to another one.
func (s *State) forgotten(e *eventpb.Event, f *eventpb.Forgotten) {
	backend := e.GetBackend()
	for _, id := range f.GetSandboxIds() {
		if s.sandboxes[id].GetBackend() == backend {
			s.dropSandbox(id)
		}
	}
	if !f.GetWhole() {
		return
	}
	for id := range s.byBackend[backend] {
		s.dropSandbox(id)
	}
	// What is left are containers whose sandbox is not known.
	for id := range s.containersByBackend[backend] {
		s.dropContainer(id)
	}
	delete(s.backends, backend)
}
