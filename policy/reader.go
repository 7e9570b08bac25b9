package policy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The tags that YAML gives to plain values.
const (
	tagString = "!!str"
	tagInt    = "!!int"
	tagBool   = "!!bool"
	tagNull   = "!!null"
	tagMap    = "!!map"
	tagList   = "!!seq"
)

// reader walks a document, collecting problems instead of stopping at one, and
// remembering where each key stands for the checks that come after.
type reader struct {
	file     string
	problems []Problem
	lines    map[string]int  // dotted key → line
	failed   map[string]bool // dotted keys whose value could not be read
}

// value reads the node at a dotted key.
type value func(key string, n *yaml.Node)

// field is a key that a mapping may have, with what reads its value.
type field struct {
	name string
	read value
}

// problem notes that something is wrong at a line.
func (r *reader) problem(line int, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// fail notes that the value at a key cannot be read, so that later checks do
// not complain about it again.
func (r *reader) fail(n *yaml.Node, key, format string, args ...any) {
	r.failed[key] = true
	r.problem(n.Line, key, format, args...)
}

// plainKey is what can stand in a dotted key without quotes.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)

// join returns the dotted key of a child.
func join(parent, name string) string {
	if parent == "" {
		return plain(name)
	}
	return parent + "." + plain(name)
}

// plain returns the name of a key as messages show it.
func plain(name string) string {
	if plainKey.MatchString(name) {
		return name
	}
	return quote(name)
}

// is tells whether the node is a plain value of the tag's type, and notes a
// problem if it is not.
func (r *reader) is(key string, n *yaml.Node, tag string) bool {
	kind := yaml.ScalarNode
	switch tag {
	case tagMap:
		kind = yaml.MappingNode
	case tagList:
		kind = yaml.SequenceNode
	}
	switch {
	case isReference(n):
		r.fail(n, key, noReferences)
	case n.Kind == kind && n.Tag == tag:
		return true
	case n.Tag == tag:
		r.fail(n, key, "has a tag that does not fit its value: remove the tag")
	case n.Tag == tagNull:
		r.fail(n, key, "has no value: give it one or remove the key")
	default:
		r.fail(n, key, "want %s, found %s", typeName(tag), typeName(n.Tag))
	}
	return false
}

// noReferences is the message about what YAML offers for not repeating oneself.
// A configuration this small does not need it, and a reader of an incident
// should not have to resolve it.
const noReferences = "anchors, aliases and merge keys are not supported: write the value out"

// isReference tells whether a node refers to another one, or can be referred to.
func isReference(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge"
}

// typeName names the type of a value in words.
func typeName(tag string) string {
	switch tag {
	case tagString:
		return "a string"
	case tagInt:
		return "a whole number"
	case tagMap:
		return "a mapping"
	case tagList:
		return "a list"
	case tagNull:
		return "nothing"
	case "!!float":
		return "a number with a fraction"
	case tagBool:
		return "a boolean"
	case "!!timestamp":
		return "a date"
	}
	return "a value tagged " + quote(tag)
}

// entries reads a mapping: each is called for every key once, in file order.
func (r *reader) entries(key string, n *yaml.Node, each func(name, key string, n *yaml.Node)) {
	if !r.is(key, n, tagMap) {
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case isReference(k):
			r.problem(k.Line, key, noReferences)
			continue
		case k.Kind != yaml.ScalarNode || k.Tag != tagString:
			r.problem(k.Line, key, "a key must be a string: put it in quotes if it is meant as one")
			continue
		}
		child := join(key, k.Value)
		if first, ok := seen[k.Value]; ok {
			r.problem(k.Line, child, "duplicate key, already given at line %d", first)
			continue
		}
		seen[k.Value] = k.Line
		r.lines[child] = k.Line
		each(k.Value, child, v)
	}
}

// object reads a mapping whose keys are known.
func (r *reader) object(key string, n *yaml.Node, fields ...field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	r.entries(key, n, func(name, child string, v *yaml.Node) {
		for _, f := range fields {
			if f.name == name {
				f.read(child, v)
				return
			}
		}
		r.problem(r.lines[child], child, "unknown key (%s)", suggest(name, names))
	})
}

// list reads a list, calling item for each element.
func (r *reader) list(item value) value {
	return func(key string, n *yaml.Node) {
		if !r.is(key, n, tagList) {
			return
		}
		for i, v := range n.Content {
			child := key + "[" + strconv.Itoa(i) + "]"
			r.lines[child] = v.Line
			item(child, v)
		}
	}
}

// text reads a string.
func (r *reader) text(to *string) value {
	return func(key string, n *yaml.Node) {
		if r.is(key, n, tagString) {
			*to = n.Value
		}
	}
}

// texts reads a list of strings. What can be read replaces what was there.
func (r *reader) texts(to *[]string) value {
	return func(key string, n *yaml.Node) {
		*to = nil
		r.list(func(key string, n *yaml.Node) {
			var s string
			r.text(&s)(key, n)
			*to = append(*to, s)
		})(key, n)
	}
}

// number reads a whole number.
func (r *reader) number(to *int) value {
	return func(key string, n *yaml.Node) {
		if !r.is(key, n, tagInt) {
			return
		}
		// YAML knows 0x10, 0o7 and 1_000 too; nobody means these here.
		i, err := strconv.Atoi(n.Value)
		if err != nil || strings.HasPrefix(n.Value, "+") {
			r.fail(n, key, "%s is not a decimal number that fits", quote(n.Value))
			return
		}
		*to = i
	}
}

// flag reads true or false.
func (r *reader) flag(to *bool) value {
	return func(key string, n *yaml.Node) {
		if !r.is(key, n, tagBool) {
			return
		}
		// YAML has True, TRUE and more for it, which read like a name.
		if n.Value != "true" && n.Value != "false" {
			r.fail(n, key, "%s: write true or false", quote(n.Value))
			return
		}
		*to = n.Value == "true"
	}
}

// duration reads a length of time.
func (r *reader) duration(to *time.Duration) value {
	return func(key string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == tagInt {
			r.fail(n, key, "%s has no unit: write it like 10s or 500ms", quote(n.Value))
			return
		}
		if !r.is(key, n, tagString) {
			return
		}
		d, err := time.ParseDuration(n.Value)
		if err != nil {
			r.fail(n, key, "%s is not a duration: write it like 10s or 500ms", quote(n.Value))
			return
		}
		*to = d
	}
}
