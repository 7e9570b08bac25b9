package wire

import "google.golang.org/protobuf/encoding/protowire"

// Edit returns m with fn applied to each occurrence of a sub-message. All else
// keeps its bytes and its place; m itself is returned where fn returns every
// occurrence as it was given it.
func (m Message) Edit(num protowire.Number, fn func(Message) Message) Message {
	var out Message
	at, done := 0, 0 // bytes of m that were read, and that are in out
	m.Fields(func(f Field) bool {
		begin := at
		at += len(f.Raw)
		if f.Num != num || f.Type != protowire.BytesType {
			return true
		}
		before := Message(f.Value)
		after := fn(before)
		if len(after) == len(before) && (len(after) == 0 || &after[0] == &before[0]) {
			return true
		}
		out = append(out, m[done:begin]...)
		out = AppendItem(out, num, after)
		done = at
		return true
	})
	if done == 0 {
		return m
	}
	return append(out, m[done:]...)
}
