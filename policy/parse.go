package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFileSize bounds a configuration file; real ones have a few kilobytes.
const maxFileSize = 1 << 20

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
func Parse(name string, data []byte) (*Config, error) { return nil, invalid([]Problem{{File: name, Message: "wip"}}) }
