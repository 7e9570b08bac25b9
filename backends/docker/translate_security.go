package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userFields say who a process runs as.
type userFields struct {
	user, group *runtimeapi.Int64Value
	username    string
	groups      []int64
	policy      runtimeapi.SupplementalGroupsPolicy
}

// translateUser makes the Engine's user and additional groups.
func translateUser(field string, u userFields) (user string, groups []string, err error) {
	switch {
	case u.user != nil && u.username != "":
		return "", nil, invalid(field+".run_as_username", "run_as_user is given as well: only one of them can be")
	case u.user != nil:
		if err := checkID(field+".run_as_user", u.user.Value); err != nil {
			return "", nil, err
		}
		user = strconv.FormatInt(u.user.Value, 10)
	case strings.ContainsAny(u.username, ":\n\x00"):
		return "", nil, invalid(field+".run_as_username", "%q is no user name", u.username)
	default:
		user = u.username
	}
	if u.group != nil {
		if user == "" {
			return "", nil, invalid(field+".run_as_group", "needs run_as_user or run_as_username")
		}
		if err := checkID(field+".run_as_group", u.group.Value); err != nil {
			return "", nil, err
		}
		user += ":" + strconv.FormatInt(u.group.Value, 10)
	}
	for i, g := range u.groups {
		if err := checkID(fmt.Sprintf("%s.supplemental_groups[%d]", field, i), g); err != nil {
			return "", nil, err
		}
		groups = append(groups, strconv.FormatInt(g, 10))
	}
	if u.policy != runtimeapi.SupplementalGroupsPolicy_Merge {
		return "", nil, refused(field+".supplemental_groups_policy", "the docker engine always merges the groups of the image")
	}
	return user, groups, nil
}

// translateCapabilities makes that what is both added and dropped is dropped,
// as containerd does: to the Engine adding is the stronger. Names may have the
// prefix CAP_ or not, for both.
func translateCapabilities(add, drop []string) (adds, drops []string) {
	plain := func(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }
	dropped := make(map[string]bool, len(drop))
	for _, name := range drop {
		dropped[plain(name)] = true
	}
	for _, name := range add {
		if !dropped[plain(name)] {
			adds = append(adds, name)
		}
	}
	return adds, drop
}

func checkID(field string, id int64) error {
	if id < 0 || id > math.MaxInt32 {
		return invalid(field, "%d is no id between 0 and %d", id, math.MaxInt32)
	}
	return nil
}

// securityFields are what becomes the Engine's SecurityOpt.
type securityFields struct {
	field        string
	seccomp      *runtimeapi.SecurityProfile
	seccompPath  string
	seccompUnset profileType
	apparmor     *runtimeapi.SecurityProfile
	apparmorName string
	selinux      *runtimeapi.SELinuxOption
	noNewPrivs   bool
	privileged   bool
}

// profileType is a profile's type; unlike the CRI's it can be unset.
type profileType int

const (
	profileUnset profileType = iota
	profileDefault
	profileUnconfined
	profileLocalhost
)

// profile is a security profile from either the typed field or the deprecated
// text.
type profile struct {
	kind profileType
	ref  string
}

// readProfileField reads the typed field or, where it is absent, the text.
func readProfileField(field string, typed *runtimeapi.SecurityProfile, textField, text string) (profile, error) {
	if typed == nil {
		return readProfileText(textField, text)
	}
	switch typed.ProfileType {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return profile{kind: profileDefault}, nil
	case runtimeapi.SecurityProfile_Unconfined:
		return profile{kind: profileUnconfined}, nil
	case runtimeapi.SecurityProfile_Localhost:
		if typed.LocalhostRef == "" {
			return profile{}, invalid(field+".localhost_ref", "is required for a profile of the node")
		}
		return profile{kind: profileLocalhost, ref: typed.LocalhostRef}, nil
	}
	return profile{}, invalid(field+".profile_type", "%d: unknown", typed.ProfileType)
}

func readProfileText(field, text string) (profile, error) {
	switch text {
	case "":
		return profile{}, nil
	case "runtime/default", "docker/default":
		return profile{kind: profileDefault}, nil
	case "unconfined":
		return profile{kind: profileUnconfined}, nil
	}
	if ref, ok := strings.CutPrefix(text, "localhost/"); ok && ref != "" {
		return profile{kind: profileLocalhost, ref: ref}, nil
	}
	return profile{}, invalid(field, "%q: want runtime/default, unconfined or localhost/ and a profile", text)
}

// securityOpts makes the Engine's SecurityOpt.
func securityOpts(s securityFields, f *facts, n nodeOptions) ([]string, error) {
	seccomp, err := seccompOpts(s, n)
	if err != nil {
		return nil, err
	}
	apparmor, err := apparmorOpts(s, f)
	if err != nil {
		return nil, err
	}
	opts := append(seccomp, apparmor...)
	if s.noNewPrivs {
		opts = append(opts, "no-new-privileges")
	}
	for _, l := range [][2]string{
		{"user", s.selinux.GetUser()}, {"role", s.selinux.GetRole()}, {"type", s.selinux.GetType()}, {"level", s.selinux.GetLevel()},
	} {
		if l[1] != "" {
			opts = append(opts, "label="+l[0]+":"+l[1])
		}
	}
	return opts, nil
}

// seccompOpts carries over the seccomp profile. A privileged container has
// none.
func seccompOpts(s securityFields, n nodeOptions) ([]string, error) {
	field := s.field + ".seccomp"
	p, err := readProfileField(field, s.seccomp, s.field+".seccomp_profile_path", s.seccompPath)
	if err != nil {
		return nil, err
	}
	if p.kind == profileUnset {
		p.kind = s.seccompUnset
	}
	switch {
	case p.kind == profileUnconfined || s.privileged:
		return []string{"seccomp=unconfined"}, nil
	case p.kind == profileDefault:
		return nil, nil
	}
	file := p.ref
	if !path.IsAbs(file) {
		return nil, invalid(field+".localhost_ref", "%q is not an absolute path", file)
	}
	content, err := n.readFile(file)
	if err != nil {
		return nil, invalid(field+".localhost_ref", "%v", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, content); err != nil {
		return nil, invalid(field+".localhost_ref", "%s: %v", file, err)
	}
	return []string{"seccomp=" + compact.String()}, nil
}

// profileMax is more than any seccomp profile needs.
const profileMax = 1 << 20

// readProfile reads a file, but no device and nothing huge: the path comes
// from a request.
func readProfile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > profileMax {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", name, profileMax)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, profileMax))
}

// apparmorOpts carries over the AppArmor profile. On a node without AppArmor
// only a profile that somebody chose is missed.
func apparmorOpts(s securityFields, f *facts) ([]string, error) {
	field := s.field + ".apparmor"
	p, err := readProfileField(field, s.apparmor, s.field+".apparmor_profile", s.apparmorName)
	if err != nil {
		return nil, err
	}
	if !f.apparmor {
		if p.kind == profileLocalhost {
			return nil, invalid(field, "profile %q: the docker engine on this node runs without AppArmor", p.ref)
		}
		return nil, nil
	}
	switch {
	case s.privileged, p.kind == profileUnconfined:
		return []string{"apparmor=unconfined"}, nil
	case p.kind == profileLocalhost:
		return []string{"apparmor=" + p.ref}, nil
	}
	return nil, nil
}
