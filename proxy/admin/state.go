package admin

import (
	"net/http"

	"google.golang.org/protobuf/proto"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// state answers with the present state. Its records never change, so that
// they are serialized after the log was let go of.
func (s *Server) state(w http.ResponseWriter, _ *http.Request) {
	var m *eventpb.State
	s.log.View(func(st *store.State) { m = st.Proto() })
	for i, op := range m.GetOperations() {
		m.Operations[i] = withoutData(op)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	// An error here is that nobody reads any more, which nobody can be told.
	_, _ = w.Write(b)
}

// withoutData returns an operation less what only its backend understands.
func withoutData(op *eventpb.Operation) *eventpb.Operation {
	n := &eventpb.Operation{
		Op: op.GetOp(), Backend: op.GetBackend(), Seq: op.GetSeq(), Time: op.GetTime(), Intent: op.GetIntent(),
	}
	for _, st := range op.GetSteps() {
		n.Steps = append(n.Steps, &eventpb.Step{Name: st.GetName(), Id: st.GetId()})
	}
	return n
}
