package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// vectors were taken from cri-dockerd v0.4.3: what it writes, byte for byte.
var vectors = []struct {
	c    Checkpoint
	want string
}{
	{Checkpoint{}, `{"version":"v1","name":"pod","namespace":"ns","data":{},"checksum":2305795928}`},
	{Checkpoint{HostNetwork: true}, `{"version":"v1","name":"pod","namespace":"ns","data":{"host_network":true},"checksum":12315789}`},
	{Checkpoint{PortMappings: []PortMapping{{"tcp", 80, 8080, "1.2.3.4"}}},
		`{"version":"v1","name":"pod","namespace":"ns","data":{"port_mappings":[{"protocol":"tcp","container_port":80,"host_port":8080,"host_ip":"1.2.3.4"}]},"checksum":2493992999}`},
	{Checkpoint{PortMappings: []PortMapping{{"tcp", 80, 8080, ""}, {"udp", 53, 5353, ""}}},
		`{"version":"v1","name":"pod","namespace":"ns","data":{"port_mappings":[{"protocol":"tcp","container_port":80,"host_port":8080},{"protocol":"udp","container_port":53,"host_port":5353}]},"checksum":733215475}`},
	{Checkpoint{PortMappings: []PortMapping{{"tcp", 80, 8080, ""}, {"udp", 5353, 53, ""}}},
		`{"version":"v1","name":"pod","namespace":"ns","data":{"port_mappings":[{"protocol":"tcp","container_port":80,"host_port":8080},{"protocol":"udp","container_port":5353,"host_port":53}]},"checksum":2256141627}`},
	{Checkpoint{PortMappings: []PortMapping{{"sctp", 80, 0, "fd00::1"}}, HostNetwork: true},
		`{"version":"v1","name":"pod","namespace":"ns","data":{"port_mappings":[{"protocol":"sctp","container_port":80,"host_port":0,"host_ip":"fd00::1"}],"host_network":true},"checksum":1818303904}`},
}

func TestFormatIsCRIDockerds(t *testing.T) {
	for _, v := range vectors {
		v.c.Name, v.c.Namespace = "pod", "ns"
		b, err := v.c.Marshal()
		if err != nil || string(b) != v.want {
			t.Errorf("%+v\n is %s, %v\nwant %s", v.c, b, err, v.want)
		}
		c, err := Parse([]byte(v.want))
		if err != nil || !reflect.DeepEqual(c, v.c) {
			t.Errorf("%s\n is %+v, %v\nwant %+v", v.want, c, err, v.c)
		}
	}
	absent := data{PortMappings: []*mapping{{ContainerPort: new(int32)}}}
	*absent.PortMappings[0].ContainerPort = 80
	if sum := absent.checksum(); sum != 492717926 {
		t.Errorf("checksum with absent values %d", sum)
	}
}

// TestParseOthers: a file of dockershim has another checksum, and protocols
// may be written large.
func TestParseOthers(t *testing.T) {
	c, err := Parse([]byte(`{"version":"v1","name":"p","namespace":"n","data":{"port_mappings":[{"protocol":"TCP","container_port":80,"host_port":8080},{"container_port":81}]},"checksum":4711}`))
	want := Checkpoint{Name: "p", Namespace: "n", PortMappings: []PortMapping{{"tcp", 80, 8080, ""}, {"tcp", 81, 0, ""}}}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := Parse([]byte(`{"version":"v1","name":"p","namespace":"n","checksum":1}`)); err != nil || c.Name != "p" {
		t.Errorf("without data: %+v, %v", c, err)
	}
}

func TestDamageIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   "unexpected end",
		vectors[2].want[:60]:                 "unexpected end",
		`{"version":"v2","checksum":1}`:      `version "v2"`,
		`{"version":"v1","name":"p"}`:        "no checksum",
		`[]`:                                 "cannot unmarshal",
		`{"version":"v1","checksum":-1}`:     "cannot unmarshal",
		withMapping(`null`):                  "it is null",
		withMapping(`{"host_port":70000}`):   "70000 is no port",
		withMapping(`{"host_port":-1}`):      "-1 is no port",
		withMapping(`{"protocol":"icmp"}`):   `protocol "icmp"`,
		withMapping(`{"host_ip":"x;y"}`):     "host IP",
		withMapping(`{"container_port":1.}`): "invalid",
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func withMapping(m string) string {
	return `{"version":"v1","data":{"port_mappings":[` + m + `]},"checksum":1}`
}

const someID = "0123456789abcdef"

func TestStore(t *testing.T) {
	old, own := t.TempDir(), filepath.Join(t.TempDir(), "not", "there", "yet")
	s, err := New(own, old)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Read(someID); ok || err != nil {
		t.Errorf("nothing there: %v, %v", ok, err)
	}
	if err := s.Remove(someID); err != nil {
		t.Errorf("remove nothing: %v", err)
	}
	want := Checkpoint{Name: "a", Namespace: "b", HostNetwork: true}
	for range 2 {
		if err := s.Write(someID, want); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(filepath.Join(own, someID))
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if got, ok, err := s.Read(someID); !ok || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	// One of dockershim's, and what a crash has left.
	for _, file := range []string{filepath.Join(old, "ab"), filepath.Join(own, ".ab")} {
		if err := os.WriteFile(file, []byte(vectors[0].want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok, err := s.Read("ab"); !ok || err != nil || got.Name != "pod" {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	for _, id := range []string{someID, "ab"} {
		if err := s.Remove(id); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{old, own} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// TestDamageStays: it is reported with its path, every time.
func TestDamageStays(t *testing.T) {
	dir := t.TempDir()
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, someID)
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, ok, err := s.Read(someID); ok || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), file) {
			t.Errorf("%v, %v", ok, err)
		}
	}
}

func TestStoreRefuses(t *testing.T) {
	if _, err := New("relative"); err == nil {
		t.Error("a relative folder")
	}
	dir := t.TempDir()
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "../x", "a/b", "ABC", ".abc"} {
		_, _, read := s.Read(id)
		for what, err := range map[string]error{"write": s.Write(id, Checkpoint{}), "read": read, "remove": s.Remove(id)} {
			if err == nil {
				t.Errorf("%s of %q", what, id)
			}
		}
	}
	// A folder in the place of the file, and of the temporary one.
	for _, name := range []string{"ab", ".cd"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write("ab", Checkpoint{}); err == nil {
		t.Error("written over a folder")
	}
	if err := s.Write("cd", Checkpoint{}); err == nil {
		t.Error("written through a folder")
	}
	if _, err := os.Stat(filepath.Join(dir, ".ab")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed write left its file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.want))
	}
	f.Add([]byte(withMapping(`{"protocol":"TCP","container_port":0}`)))
	f.Add([]byte(withMapping(`null`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v is not about damage", err)
			}
			return
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Parse(again); err != nil || !reflect.DeepEqual(c, d) {
			t.Errorf("%+v becomes %+v, %v", c, d, err)
		}
	})
}
