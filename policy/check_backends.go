package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// checkBackends looks at each backend, and for backends that get in each other's
// way.
func (r *reader) checkBackends(c *Config) {
	if len(c.Backends) == 0 {
		switch {
		case !r.readable("backends"):
		case r.lines["backends"] == 0:
			r.missing("", "backends", "at least one backend, such as docker: {type: docker}")
		default:
			r.problem(r.lines["backends"], "backends", "is empty: write at least one backend, such as docker: {type: docker}")
		}
		return
	}
	taken := claims{}
	for _, b := range c.Backends {
		key := join("backends", b.Name)
		if !label.MatchString(b.Name) {
			r.problem(r.lines[key], key, "cannot be the name of a backend: lower-case letters, digits and - only, at most 63")
		}
		if !r.readable(key) {
			continue
		}
		r.checkValue(key, "endpoint", checkUnix(b.Endpoint, DefaultDockerEndpoint))
		if b.Type == TypeDocker {
			r.checkDocker(key, b)
		}
		r.checkShared(key, b, taken)
	}
}

// claims remembers what a backend has to itself, and whose it is.
type claims map[string]string

// take returns the backend that took the thing before, or gives it to name.
func (c claims) take(thing, name string) (owner string, taken bool) {
	if owner, taken = c[thing]; !taken {
		c[thing] = name
	}
	return owner, taken
}

// checkShared looks for what two backends cannot share.
func (r *reader) checkShared(key string, b Backend, taken claims) {
	if owner, ok := taken.take(string(b.Type)+" "+realSocket(b.Endpoint), b.Name); ok {
		r.checkValue(key, "endpoint", fmt.Errorf("%s is the endpoint of backend %s already, and every pod would be listed twice: remove one of the two",
			quote(b.Endpoint), quote(owner)))
	}
	if b.Type != TypeDocker || strings.HasSuffix(b.StreamListen, ":0") {
		return
	}
	if owner, ok := taken.take(b.StreamListen, b.Name); ok {
		r.checkValue(key, "streamListen", fmt.Errorf("%s is where backend %s serves its streams already: choose another port, or 0",
			quote(b.StreamListen), quote(owner)))
	}
}

// checkDocker looks at what only a backend of type docker has.
func (r *reader) checkDocker(key string, b Backend) {
	r.checkValue(key, "podInfraImage", checkImage(b.PodInfraImage))
	r.checkValue(key, "streamListen", checkStream(b.StreamListen))

	logs := join(key, "logs")
	r.checkValue(logs, "maxSize", checkLogSize(b.Logs.MaxSize))
	if n := b.Logs.MaxFiles; n < 2 || n > 100 {
		r.checkValue(logs, "maxFiles", fmt.Errorf("%d is not between 2 and 100: with one file rotation would lose lines not yet read", n))
	}

	cni := join(key, "cni")
	r.checkValue(cni, "confDir", checkPath(b.CNI.ConfDir))
	r.checkValue(cni, "cacheDir", checkPath(b.CNI.CacheDir))
	if len(b.CNI.BinDirs) == 0 {
		r.checkValue(cni, "binDirs", errors.New("is empty: name the folders of the CNI plugins, or remove the key for the usual ones"))
	}
	r.checkDirs(join(cni, "binDirs"), b.CNI.BinDirs)

	if len(b.CheckpointDirs) == 0 {
		r.checkValue(key, "checkpointDirs", errors.New("is empty: name the folders of sandbox checkpoints, or remove the key for the usual ones"))
	}
	r.checkDirs(join(key, "checkpointDirs"), b.CheckpointDirs)
}

// checkDirs looks at a list of folders.
func (r *reader) checkDirs(key string, dirs []string) {
	for i, dir := range dirs {
		item := fmt.Sprintf("%s[%d]", key, i)
		if err := checkPath(dir); err != nil && r.readable(item) {
			r.problem(r.lines[item], item, "%s", err)
		}
	}
}

// checkImage tells what keeps a value from being an image's name. Whether the
// image exists is the Engine's to say.
func checkImage(image string) error {
	unusable := func(c rune) bool { return !unicode.IsPrint(c) || unicode.IsSpace(c) }
	if image == "" || len(image) > 512 || strings.ContainsFunc(image, unusable) {
		return fmt.Errorf("%s is not the name of an image: write it like %s", quote(image), DefaultPodInfraImage)
	}
	return nil
}
