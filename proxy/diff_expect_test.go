package proxy

import (
	"bytes"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// What an answer must be is worked out here without package wire, and only to
// be compared with.

// rawField is a field as it stands in a message.
type rawField struct {
	num   protowire.Number
	typ   protowire.Type
	raw   []byte
	value []byte
}

// fieldsOf takes a message apart; ok is false where it is none.
func fieldsOf(b []byte) (list []rawField, ok bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return list, false
		}
		f := rawField{num: num, typ: typ, raw: b[:n]}
		if typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			f.value, _ = protowire.ConsumeBytes(b[tag:n])
		}
		list = append(list, f)
		b = b[n:]
	}
	return list, true
}

// without takes the string at path out of a message: what is left, the string,
// and whether the message that would hold it is there. Occurrences of a
// message count as one.
func without(b []byte, path ...protowire.Number) (rest []byte, value string, holder, ok bool) {
	list, ok := fieldsOf(b)
	var inner []byte
	there := false
	for _, f := range list {
		if f.num != path[0] || f.typ != protowire.BytesType {
			rest = append(rest, f.raw...)
			continue
		}
		there = true
		if len(path) == 1 {
			value = string(f.value)
		} else {
			inner = append(inner, f.value...)
		}
	}
	if len(path) == 1 || !there {
		return rest, value, len(path) == 1, ok
	}
	innerRest, value, holder, innerOK := without(inner, path[1:]...)
	rest = protowire.AppendBytes(protowire.AppendTag(rest, path[0], protowire.BytesType), innerRest)
	return rest, value, holder, ok && innerOK
}

// at is the string at path.
func at(b []byte, path ...protowire.Number) string {
	_, v, _, _ := without(b, path...)
	return v
}

// has tells whether a message has a field.
func has(b []byte, num protowire.Number) bool {
	list, _ := fieldsOf(b)
	for _, f := range list {
		if f.num == num && f.typ == protowire.BytesType {
			return true
		}
	}
	return false
}

// rewrite is the one change that is allowed: the string at path becomes what
// want makes of it.
type rewrite struct {
	path []protowire.Number
	want func(was string) string
}

// allows tells whether got is sent with the rewrite done and nothing else.
func (r *rewrite) allows(sent, got []byte) bool {
	if r == nil {
		return bytes.Equal(sent, got)
	}
	rest, was, holder, ok := without(sent, r.path...)
	if !ok || !holder || r.want(was) == was {
		return bytes.Equal(sent, got)
	}
	gotRest, is, _, gotOK := without(got, r.path...)
	return gotOK && bytes.Equal(rest, gotRest) && is == r.want(was)
}

// onlyIfSet is a rewrite that leaves alone what has none.
func onlyIfSet(to string) func(string) string {
	return func(was string) string {
		if was == "" {
			return ""
		}
		return to
	}
}

func always(to string) func(string) string { return func(string) string { return to } }

// someStatus is an error with or without details, of types that nobody knows.
func someStatus(code int, message string, detail []byte, details bool) *status.Status {
	if !details {
		return status.New(codes.Code(code), message)
	}
	return status.FromProto(&spb.Status{Code: int32(code), Message: message, Details: []*anypb.Any{
		{TypeUrl: "type.googleapis.com/nobody.knows.This", Value: detail}, {Value: detail},
	}})
}
