package proxy

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crimux/crimux/backends"
	"github.com/crimux/crimux/proxy/wire"
)

// pieceSize is how large a message of a stream is that crimux cuts itself:
// what a gRPC client takes that was not told otherwise, with room to spare.
const pieceSize = 2 << 20

// pieces cuts a list at its fields into messages of at most size bytes, and of
// one field where that is larger. An empty list is no message. They share the
// memory of f, which must not be freed but as one of them.
func pieces(f *backends.Frame, size int) []*backends.Frame {
	if f.Len() == 0 {
		return nil
	}
	if f.Len() <= size {
		return []*backends.Frame{f}
	}
	b := f.Bytes()
	var cut []*backends.Frame
	begin, end := 0, 0
	wire.Message(b).Fields(func(fd wire.Field) bool {
		if next := end + len(fd.Raw); next-begin > size && end > begin {
			cut = append(cut, backends.NewFrame(b[begin:end:end]))
			begin = end
		}
		end += len(fd.Raw)
		return true
	})
	return append(cut, backends.NewFrame(b[begin:]))
}

// sendable cuts those of the messages that have grown, or were made, larger
// than one may be. A single item that is too large is an error, never left
// out.
func sendable(messages []*backends.Frame) ([]*backends.Frame, error) {
	var all []*backends.Frame // nil while nothing is cut
	for i, f := range messages {
		if f.Len() <= backends.MaxMessage {
			if all != nil {
				all = append(all, f)
			}
			continue
		}
		if all == nil {
			all = append(make([]*backends.Frame, 0, len(messages)+backends.MaxMessage/pieceSize), messages[:i]...)
		}
		for _, piece := range pieces(f, pieceSize) {
			if piece.Len() > backends.MaxMessage {
				return nil, status.Errorf(codes.ResourceExhausted,
					"an item of the list is %d bytes, more than the %d that fit a message", piece.Len(), backends.MaxMessage)
			}
			all = append(all, piece)
		}
	}
	if all == nil {
		return messages, nil
	}
	return all, nil
}
