package crilog

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// record is one record of a json-file log. Its slices point into the line or
// the buffer that it was parsed with.
type record struct {
	text   []byte // ends with a newline but where the Engine split a long line
	stream []byte // stdout or stderr
	stamp  []byte // RFC 3339 with nanoseconds, as the Engine wrote it
}

// The parts of a record as the Engine writes it. Other JSON of the same
// meaning is understood too, but slower.
var (
	head   = []byte(`{"log":"`)
	middle = []byte(`,"stream":"`)
	foot   = []byte(`,"time":"`)
)

// parse reads one line of a json-file log, with or without its newline. A line
// in which a torn one is followed by a whole one, as an Engine that was killed
// leaves it, gives the whole one and torn is true. ok is false for a line that
// holds no record. scratch is memory to use; what is returned of it is to be
// passed next time, when r is no longer needed.
func parse(line, scratch []byte) (r record, next []byte, torn, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if r, next, ok = parseWhole(line, scratch); ok {
		return r, next, false, true
	}
	if i := bytes.LastIndex(line, head); i > 0 {
		if r, next, ok = parseWhole(line[i:], scratch); ok {
			return r, next, true, true
		}
	}
	return record{}, scratch, true, false
}

// parseWhole reads a line that is one JSON object.
func parseWhole(line, scratch []byte) (r record, next []byte, ok bool) {
	r, next, ok = parseFast(line, scratch)
	if !ok {
		r, ok = parseSlow(line)
	}
	return r, next, ok && r.valid()
}

// valid reports whether the record can be written in the CRI's format.
func (r record) valid() bool {
	if s := string(r.stream); s != "stdout" && s != "stderr" {
		return false
	}
	if len(r.stamp) < len("2006-01-02T15:04:05Z") || len(r.stamp) > len("2006-01-02T15:04:05.000000000+00:00") {
		return false
	}
	for _, c := range r.stamp {
		if (c < '0' || c > '9') && bytes.IndexByte([]byte("-:.TZ+"), c) < 0 {
			return false
		}
	}
	return true
}

// parseSlow reads any JSON object with the three fields.
func parseSlow(line []byte) (record, bool) {
	var v struct {
		Log    string `json:"log"`
		Stream string `json:"stream"`
		Time   string `json:"time"`
	}
	if json.Unmarshal(line, &v) != nil {
		return record{}, false
	}
	return record{[]byte(v.Log), []byte(v.Stream), []byte(v.Time)}, true
}

// parseFast reads a line as the Engine writes it when there are no attributes.
func parseFast(line, scratch []byte) (r record, next []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, head)
	if !ok {
		return r, scratch, false
	}
	text, rest, next, ok := unquote(rest, scratch)
	if !ok {
		return r, next, false
	}
	if rest, ok = bytes.CutPrefix(rest, middle); !ok {
		return r, next, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return r, next, false
	}
	if rest, ok = bytes.CutPrefix(rest, foot); !ok {
		return r, next, false
	}
	stamp, rest, ok := bytes.Cut(rest, []byte{'"'})
	return record{text, stream, stamp}, next, ok && string(rest) == "}"
}

// unquote reads a JSON string of which the opening quote was read, and returns
// what comes behind its closing quote.
func unquote(in, scratch []byte) (text, rest, next []byte, ok bool) {
	out := scratch[:0]
	for start, i := 0, 0; i < len(in); {
		switch c := in[i]; {
		case c == '"':
			if len(out) == 0 && start == 0 {
				return in[:i], in[i+1:], scratch, true // nothing was escaped
			}
			out = append(out, in[start:i]...)
			return out, in[i+1:], out, true
		case c < ' ':
			return nil, nil, scratch, false
		case c != '\\':
			i++
		default:
			out = append(out, in[start:i]...)
			n := 0
			if out, n = unescape(out, in[i:]); n == 0 {
				return nil, nil, scratch, false
			}
			i += n
			start = i
		}
	}
	return nil, nil, scratch, false
}

// escapes are the escapes of one character.
var escapes = ['z']byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape appends what the escape at the start of in stands for, and returns
// its length, 0 if it is none.
func unescape(out, in []byte) ([]byte, int) {
	if len(in) < 2 {
		return out, 0
	}
	if in[1] != 'u' {
		if in[1] >= 'z' || escapes[in[1]] == 0 {
			return out, 0
		}
		return append(out, escapes[in[1]]), 2
	}
	r := hex4(in[2:])
	if r < 0 {
		return out, 0
	}
	n := 6
	if utf16.IsSurrogate(r) {
		low := rune(-1)
		if len(in) >= 12 && in[6] == '\\' && in[7] == 'u' {
			low = hex4(in[8:])
		}
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			n = 12
		}
	}
	return utf8.AppendRune(out, r), n
}

// hex4 reads four hexadecimal digits, or returns -1.
func hex4(in []byte) rune {
	if len(in) < 4 {
		return -1
	}
	var r rune
	for _, c := range in[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendCRI appends the record's lines in the CRI's format, without the first
// skip of them, and returns how many lines the record has. A line that goes on
// in the next record of its stream is tagged P, all others F.
func (r record) appendCRI(out []byte, skip int) ([]byte, int) {
	n := 0
	for text := r.text; len(text) > 0; n++ {
		tag, line, rest := byte('F'), text, []byte(nil)
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, rest = text[:i], text[i+1:]
		} else {
			tag = 'P'
		}
		text = rest
		if n < skip {
			continue
		}
		out = append(out, r.stamp...)
		out = append(out, ' ')
		out = append(out, r.stream...)
		out = append(out, ' ', tag, ' ')
		out = append(out, line...)
		out = append(out, '\n')
	}
	return out, n
}

// stampOf returns the timestamp of a line in the CRI's format, or nil when it
// is none.
func stampOf(line []byte) []byte {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || !(record{stream: []byte("stdout"), stamp: stamp}).valid() {
		return nil
	}
	for _, prefix := range []string{"stdout F ", "stdout P ", "stderr F ", "stderr P "} {
		if bytes.HasPrefix(rest, []byte(prefix)) {
			return stamp
		}
	}
	return nil
}

// instant returns the time of a timestamp, zero if it is none.
func instant(stamp []byte) time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}
	}
	return t
}
