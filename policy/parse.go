package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFileSize bounds a configuration file; real ones have a few kilobytes.
const maxFileSize = 64 << 10

// Load reads and parses the configuration file at path. The error tells that
// the file cannot be read, or is the *InvalidError that Parse returns.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the configuration: %w", err)
	}
	// One byte over the limit is enough for Parse to refuse it.
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration, fills in the defaults and checks everything that
// can be checked without looking at the machine. name stands for the file in
// messages. The error is an *InvalidError with all problems found; then there
// is no Config. No input makes it panic.
func Parse(name string, data []byte) (*Config, error) {
	root, problem := document(data)
	if problem != nil {
		problem.File = name
		return nil, invalid([]Problem{*problem})
	}
	r := &reader{file: name, lines: map[string]int{}, failed: map[string]bool{}}
	c := r.config(root)
	r.check(c)
	if err := invalid(r.problems); err != nil {
		return nil, err
	}
	return c, nil
}

// document returns the top node of the one YAML document in data.
func document(data []byte) (*yaml.Node, *Problem) {
	if len(data) > maxFileSize {
		return nil, &Problem{Message: fmt.Sprintf("is larger than %d bytes: a configuration needs a few kilobytes", maxFileSize)}
	}
	if problem := encodingProblem(data); problem != nil {
		return nil, problem
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := decoder.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		return nil, &Problem{Message: "is empty: at least apiVersion, kind, backends and default are needed"}
	case err != nil:
		return nil, syntaxProblem(err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, &Problem{Line: second.Line, Message: "a second document begins here: keep one, without --- between"}
	case !errors.Is(err, io.EOF):
		return nil, syntaxProblem(err)
	}
	return doc.Content[0], nil
}

// encodingProblem finds what cannot be in a YAML text at all; the library would
// say so too, but not where.
func encodingProblem(data []byte) *Problem {
	line := 1
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && size == 1:
			return &Problem{Line: line, Message: fmt.Sprintf("the byte %#02x is not UTF-8: save the file as UTF-8", data[0])}
		case c == '\n':
			line++
		case unicode.IsControl(c) && c != '\t' && c != '\r' && c != '\u0085':
			return &Problem{Line: line, Message: fmt.Sprintf("the control character %U cannot be in a configuration: remove it", c)}
		}
		data = data[size:]
	}
	return nil
}

// yamlMessage takes the messages of the YAML library apart.
var yamlMessage = regexp.MustCompile(`(?s)^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// syntaxProblem turns an error of the YAML library into a problem.
func syntaxProblem(err error) *Problem {
	parts := yamlMessage.FindStringSubmatch(err.Error())
	line, convErr := strconv.Atoi(parts[1])
	if convErr != nil {
		line = 0 // the library knows no line for some errors
	}
	return &Problem{Line: line, Message: "not valid YAML: " + parts[2]}
}
