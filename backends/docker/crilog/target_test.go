package crilog

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzOpenTarget: whatever lies in the place of a log, it is refused and left
// as it is, or it is cut after one of its lines, at most the last.
func FuzzOpenTarget(f *testing.F) {
	line := stamp + " stdout F hello\n"
	for _, s := range []string{"", line, line + line, line + line[:20], line[:20], "\n", "hello\n", "hello", line + "hello\n", line + "\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "0.log")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		target, err := openTarget(path)
		if err == nil {
			if _, err := lastWritten(target); err != nil {
				t.Fatal(err)
			}
			if err := target.Close(); err != nil {
				t.Fatal(err)
			}
		}
		kept, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		switch {
		case err != nil && !bytes.Equal(kept, content):
			t.Fatalf("%q was refused and is %q: %v", content, kept, err)
		case err == nil && string(kept) != string(content[:bytes.LastIndexByte(content, '\n')+1]):
			t.Fatalf("%q became %q", content, kept)
		}
	})
}
