package policy

import "strings"

const (
	// recordedPrefix marks the annotations that events always keep; taking over
	// and rebuilding pods depends on them.
	recordedPrefix = "io.kubernetes."
	// secretAnnotation repeats the whole manifest, environment values included.
	secretAnnotation = "kubectl.kubernetes.io/last-applied-configuration"
)

// Record says what events keep beyond what they always keep.
type Record struct {
	// Annotations are keys of annotations, or the beginnings of keys when they
	// end in "*".
	Annotations []string
	// Environment is how much of containers' environment is kept; "" is
	// EnvironmentNone.
	Environment Environment
}

// Environment says how much of containers' environment events keep.
type Environment string

// What is kept of an environment. Values are credentials more often than not,
// and whoever may read the event log, an export of it or what a sink ships
// reads them.
const (
	EnvironmentNone   Environment = "none"
	EnvironmentNames  Environment = "names"
	EnvironmentValues Environment = "values"
)

// Keeps tells whether events record the annotation of that key: those that
// begin with io.kubernetes. always are, others when they are configured. Safe
// for concurrent use.
func (r Record) Keeps(key string) bool {
	if strings.HasPrefix(key, recordedPrefix) {
		return true
	}
	for _, pattern := range r.Annotations {
		if matches(pattern, key) {
			return true
		}
	}
	return false
}

// matches tells whether a key is the pattern, or begins with it if it ends in
// a star.
func matches(pattern, key string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(key, prefix)
	}
	return key == pattern
}
