package view

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"

	"github.com/crimux/crimux/store/eventpb"
)

// none stands for a value that there is not.
const none = "-"

// clean makes text out of the log fit for one line of a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return unicode.ReplacementChar
		}
	}, s)
}

// Clean makes text out of the log fit for one line of a terminal.
func Clean(s string) string { return clean(s) }

// codeName is the name of a gRPC code.
func codeName(code uint32) string { return codes.Code(code).String() }

func sandboxState(s eventpb.SandboxState) string {
	return strings.TrimPrefix(s.String(), "SANDBOX_STATE_")
}

func containerState(s eventpb.ContainerState) string {
	return strings.TrimPrefix(s.String(), "CONTAINER_STATE_")
}

// exitWords says how a container ended: "exit 137 (OOMKilled)".
func exitWords(c *eventpb.Container) string {
	if c.GetReason() == "" {
		// A stop is recorded before anybody has looked at how it ended.
		return "exit code not known yet"
	}
	return fmt.Sprintf("exit %d (%s)", c.GetExitCode(), c.GetReason())
}

// shortLength is how much of an id people are shown, as docker and crictl do.
const shortLength = 12

// digest is how an image's digest or id begins, unlike a tag, which may be all
// hexadecimal, too.
const digest = "sha256:"

// Short returns the beginning of an id or digest, and anything else whole.
func Short(id string) string {
	hex, isDigest := strings.CutPrefix(id, digest)
	if len(hex) <= shortLength || strings.Trim(hex, "0123456789abcdef") != "" {
		return clean(id)
	}
	if isDigest {
		return digest + hex[:shortLength]
	}
	return hex[:shortLength]
}

// containerName names a container within its pod; restarts have the same name
// and another attempt.
func containerName(name, id string, attempt uint32) string {
	if name == "" {
		name = Short(id)
	}
	if attempt > 0 {
		return fmt.Sprintf("%s attempt %d", clean(name), attempt)
	}
	return clean(name)
}

// podName is a pod's namespace and name.
func podName(p *eventpb.PodKey) string {
	if p == nil {
		return none
	}
	return clean(p.GetNamespace() + "/" + p.GetName())
}

// took is a length of time with two or three digits.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// Age is a length of time in its largest unit.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s" // The node's clock was set back.
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// ageAt is the age at now of what happened at nanos, or "-".
func ageAt(now time.Time, nanos int64) string {
	if nanos == 0 {
		return none
	}
	return Age(now.Sub(time.Unix(0, nanos)))
}

// Exact is a time as programs and careful people want it.
func Exact(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// absolute is a time in a column of times: exact to the millisecond, and all
// of one width.
func absolute(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
