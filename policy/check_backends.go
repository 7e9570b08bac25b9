package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// checkBackends looks at each backend, and at pairs that get in each other's
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
	for i, b := range c.Backends {
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
		for _, other := range c.Backends[:i] {
			r.checkPair(key, b, other)
		}
	}
}

// checkPair looks for what two backends cannot share; other is the earlier one.
func (r *reader) checkPair(key string, b, other Backend) {
	if b.Type != other.Type {
		return
	}
	if sameSocket(b.Endpoint, other.Endpoint) {
		r.checkValue(key, "endpoint", fmt.Errorf("%s is the endpoint of backend %s already, and every pod would be listed twice: remove one of the two",
			quote(b.Endpoint), quote(other.Name)))
	}
	if b.Type == TypeDocker && b.StreamListen == other.StreamListen && !strings.HasSuffix(b.StreamListen, ":0") {
		r.checkValue(key, "streamListen", fmt.Errorf("%s is where backend %s serves its streams already: choose another port, or 0",
			quote(b.StreamListen), quote(other.Name)))
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
	for i, dir := range b.CNI.BinDirs {
		item := fmt.Sprintf("%s[%d]", join(cni, "binDirs"), i)
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
