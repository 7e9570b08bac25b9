package docker

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The names of dockershim and cri-dockerd:
//
//	k8s_POD_<pod>_<namespace>_<uid>_<attempt>          a sandbox
//	k8s_<container>_<pod>_<namespace>_<uid>_<attempt>  a container
//
// Theirs may end in a further _<8 hex digits>, after a conflict of names. Ours
// never do.
const (
	namePrefix  = "k8s"
	sandboxPart = "POD"
)

// identity is what a name says.
type identity struct {
	// container is empty for a sandbox.
	container           string
	pod, namespace, uid string
	attempt             uint32
}

// part is what one part of a name may be: the Engine's own grammar without the
// separator, without which a name could not be read back.
var part = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]*$`)

// name is the Engine's name for the object.
func (i identity) name() string {
	first := i.container
	if first == "" {
		first = sandboxPart
	}
	return fmt.Sprintf("%s_%s_%s_%s_%s_%d", namePrefix, first, i.pod, i.namespace, i.uid, i.attempt)
}

// sandbox is the CRI's metadata of a sandbox.
func (i identity) sandbox() *runtimeapi.PodSandboxMetadata {
	return &runtimeapi.PodSandboxMetadata{Name: i.pod, Namespace: i.namespace, Uid: i.uid, Attempt: i.attempt}
}

// parseName reads a name; ok is false if it is none of ours.
func parseName(name string) (id identity, ok bool) {
	parts := strings.Split(strings.TrimPrefix(name, "/"), "_")
	switch {
	case len(parts) == 7 && suffix.MatchString(parts[6]):
	case len(parts) == 6:
	default:
		return identity{}, false
	}
	if parts[0] != namePrefix || parts[1] == "" {
		return identity{}, false
	}
	attempt, err := strconv.ParseUint(parts[5], 10, 32)
	if err != nil {
		return identity{}, false
	}
	id = identity{container: parts[1], pod: parts[2], namespace: parts[3], uid: parts[4], attempt: uint32(attempt)}
	if id.container == sandboxPart {
		id.container = ""
	}
	return id, true
}

var suffix = regexp.MustCompile(`^[0-9a-f]{8}$`)

// sandboxIdentity reads the metadata of a sandbox.
func sandboxIdentity(field string, m *runtimeapi.PodSandboxMetadata) (identity, error) {
	if m == nil {
		return identity{}, invalid(field, "is required")
	}
	for _, p := range []struct{ field, value string }{{"name", m.Name}, {"namespace", m.Namespace}, {"uid", m.Uid}} {
		if err := checkPart(field+"."+p.field, p.value); err != nil {
			return identity{}, err
		}
	}
	return identity{pod: m.Name, namespace: m.Namespace, uid: m.Uid, attempt: m.Attempt}, nil
}

// containerIdentity reads the metadata of a container in the sandbox.
func containerIdentity(field string, m *runtimeapi.ContainerMetadata, sandbox identity) (identity, error) {
	if m == nil {
		return identity{}, invalid(field, "is required")
	}
	if err := checkPart(field+".name", m.Name); err != nil {
		return identity{}, err
	}
	if m.Name == sandboxPart {
		return identity{}, invalid(field+".name", "%q names sandboxes: choose another", sandboxPart)
	}
	sandbox.container, sandbox.attempt = m.Name, m.Attempt
	return sandbox, nil
}

func checkPart(field, value string) error {
	if value == "" {
		return invalid(field, "is required")
	}
	if !part.MatchString(value) {
		return invalid(field, "%q: only letters, digits, '.' and '-', beginning with a letter or digit, can be part of a docker name", value)
	}
	return nil
}
