// Package wire reads and rewrites single fields of serialized protobuf
// messages without decoding the rest, so that what crimux does not know
// passes through it byte for byte.
//
// Reading follows the rules of a full decoder: of a scalar that occurs more
// than once the last occurrence counts, and occurrences of one sub-message
// are merged. Malformed input reads as if the message ended where it stops
// being well-formed; Valid tells.
package wire

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is a serialized protobuf message.
type Message []byte

// errMalformed is returned by Valid.
var errMalformed = errors.New("malformed protobuf message")

// Field is one field as it stands in a message.
type Field struct {
	Num  protowire.Number
	Type protowire.Type
	// Raw is the whole field, tag included.
	Raw []byte
	// Value is Raw without the tag; of a length-delimited field, its content.
	Value []byte
}

// cursor goes through the fields of a message.
type cursor struct {
	Field
	rest Message
}

// next moves to the first field of the rest; false at the end of the message
// and where it is malformed.
func (c *cursor) next() bool {
	m := c.rest
	if short(m) {
		if end := 2 + int(m[1]); end <= len(m) {
			c.Num, c.Type = protowire.Number(m[0]>>3), protowire.BytesType
			c.Raw, c.Value, c.rest = m[:end:end], m[2:end:end], m[end:]
			return true
		}
		return false
	}
	num, typ, tag := protowire.ConsumeTag(m)
	if tag < 0 {
		return false
	}
	if typ == protowire.BytesType {
		v, n := protowire.ConsumeBytes(m[tag:])
		if n < 0 {
			return false
		}
		end := tag + n
		c.Num, c.Type, c.Raw, c.Value, c.rest = num, typ, m[:end:end], v[:len(v):len(v)], m[end:]
		return true
	}
	n := protowire.ConsumeFieldValue(num, typ, m[tag:])
	if n < 0 {
		return false
	}
	end := tag + n
	c.Num, c.Type, c.Raw, c.Value, c.rest = num, typ, m[:end:end], m[tag:end:end], m[end:]
	return true
}

// short tells whether a message begins with a length-delimited field of less
// than 128 bytes and with a number below 16, as nearly every field of a list
// is: its content begins at the third byte, and the second is its length.
func short(m Message) bool {
	return len(m) >= 2 && m[0]&0x87 == byte(protowire.BytesType) && m[0] > 7 && m[1] < 0x80
}

// seek moves to the next length-delimited field with that number; false at the
// end of the message and where it is malformed.
func (c *cursor) seek(num protowire.Number) bool {
	for {
		m := c.rest
		for short(m) && protowire.Number(m[0]>>3) != num {
			end := 2 + int(m[1])
			if end > len(m) {
				return false
			}
			m = m[end:]
		}
		c.rest = m
		if !c.next() {
			return false
		}
		if c.Num == num && c.Type == protowire.BytesType {
			return true
		}
	}
}

// Fields calls fn for each field in order until it returns false.
func (m Message) Fields(fn func(Field) bool) {
	for c := (cursor{rest: m}); c.next(); {
		if !fn(c.Field) {
			return
		}
	}
}

// Valid returns an error unless m is well-formed at its top level.
func (m Message) Valid() error {
	c := cursor{rest: m}
	for c.next() {
	}
	if len(c.rest) > 0 {
		return errMalformed
	}
	return nil
}

// Has reports whether the field occurs.
func (m Message) Has(num protowire.Number) bool {
	for c := (cursor{rest: m}); c.next(); {
		if c.Num == num {
			return true
		}
	}
	return false
}

// Bytes returns the content of a string or bytes field, nil where it is
// absent. It aliases m.
func (m Message) Bytes(num protowire.Number) []byte {
	var v []byte
	for c := (cursor{rest: m}); c.seek(num); {
		v = c.Value
	}
	return v
}

// String returns the content of a string field, "" where it is absent.
func (m Message) String(num protowire.Number) string { return string(m.Bytes(num)) }

// Uint returns the value of a varint field, 0 where it is absent.
func (m Message) Uint(num protowire.Number) uint64 {
	var v uint64
	for c := (cursor{rest: m}); c.next(); {
		if c.Num == num && c.Type == protowire.VarintType {
			v, _ = protowire.ConsumeVarint(c.Value)
		}
	}
	return v
}

// Int returns the value of an int32 or int64 field, 0 where it is absent.
func (m Message) Int(num protowire.Number) int64 { return int64(m.Uint(num)) }

// Msg returns a sub-message, nil where it is absent.
func (m Message) Msg(num protowire.Number) Message {
	var sub Message
	for c := (cursor{rest: m}); c.seek(num); {
		if sub == nil {
			sub = c.Value
		} else {
			sub = append(sub[:len(sub):len(sub)], c.Value...)
		}
	}
	return sub
}

// Each calls fn for each occurrence of a repeated sub-message or string until
// it returns false.
func (m Message) Each(num protowire.Number, fn func(Message) bool) {
	for c := (cursor{rest: m}); c.seek(num); {
		if !fn(c.Value) {
			return
		}
	}
}

// Map returns a map<string, string> field, nil where it is absent.
func (m Message) Map(num protowire.Number) map[string]string {
	var kv map[string]string
	m.Each(num, func(entry Message) bool {
		if kv == nil {
			kv = make(map[string]string)
		}
		kv[entry.String(1)] = entry.String(2)
		return true
	})
	return kv
}

// With returns m with the string at path set to value; "" removes the field.
// All but the last number of path name sub-messages; one that is absent is
// made, unless value is "". Every other field keeps its bytes. The result
// aliases m where nothing changed, and where m, or a sub-message on the way, is
// malformed: what cannot be read is not cut short either.
func (m Message) With(value string, path ...protowire.Number) Message {
	if m.At(path...) == value || m.Valid() != nil {
		return m
	}
	num := path[0]
	content := Message(value)
	if len(path) > 1 {
		if content = m.Msg(num).With(value, path[1:]...); content.At(path[1:]...) != value {
			return m
		}
	}
	out := make(Message, 0, len(m)+len(value)+8)
	m.Fields(func(f Field) bool {
		if f.Num != num || f.Type != protowire.BytesType {
			out = append(out, f.Raw...)
		}
		return true
	})
	if value == "" && len(path) == 1 {
		return out
	}
	out = protowire.AppendTag(out, num, protowire.BytesType)
	return protowire.AppendBytes(out, content)
}

// At returns the string at path, "" where it or a sub-message on the way is
// absent.
func (m Message) At(path ...protowire.Number) string {
	for _, num := range path[:len(path)-1] {
		m = m.Msg(num)
	}
	return m.String(path[len(path)-1])
}

// AppendItem appends a length-delimited field to b.
func AppendItem(b []byte, num protowire.Number, item []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, item)
}
