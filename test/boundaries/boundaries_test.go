// Package boundaries holds the folders of this module to the imports that
// ARCHITECTURE.md allows them: arrows point one way.
package boundaries

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/crimux/crimux/"

// rooms maps each folder to those it may import besides itself; "*" is all.
var rooms = map[string][]string{
	"cmd":             {"*"},
	"test":            {"*"},
	"proxy":           {"backends", "store", "policy"},
	"backends":        {},
	"backends/cri":    {"backends"},
	"backends/docker": {"backends", "cni"},
	"store":           {},
	"policy":          {},
	"cni":             {},
}

// room returns the folder of the table that a package is in, the longest that
// fits; "" for what lies outside this module.
func room(pkg string) string {
	path, ours := strings.CutPrefix(pkg, module)
	if !ours {
		return ""
	}
	best := ""
	for name := range rooms {
		if (path == name || strings.HasPrefix(path, name+"/")) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

// TestArrowsPointOneWay is about what is built: a test may need more than what
// it tests.
func TestArrowsPointOneWay(t *testing.T) {
	for _, p := range list(t) {
		from := room(p.ImportPath)
		if from == "" {
			t.Errorf("%s is in none of the folders that the table names", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			to := room(imp)
			if to == "" && strings.HasPrefix(imp, module) {
				t.Errorf("%s imports %s, which is in none of the folders", p.ImportPath, imp)
			}
			if to != "" && to != from && !allowed(from, to) {
				t.Errorf("%s imports %s: %s must not import %s", p.ImportPath, imp, from, to)
			}
		}
	}
}

// TestNobodyImportsTheTests but the tests.
func TestNobodyImportsTheTests(t *testing.T) {
	for _, p := range list(t) {
		for _, imp := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
			if room(imp) == "test" && room(p.ImportPath) != "test" {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func allowed(from, to string) bool {
	for _, r := range rooms[from] {
		if r == "*" || r == to {
			return true
		}
	}
	return false
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(rooms) {
		t.Fatalf("only %d packages are listed", len(all))
	}
	return all
}
