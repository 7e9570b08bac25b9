package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/crimux/crimux/store"
	"github.com/crimux/crimux/store/eventpb"
)

// intentWords says what an operation is about to do.
func intentWords(i *eventpb.Intent, o object) string {
	if i.GetRoute() != nil {
		return "begins: " + routeWords(i.GetRoute())
	}
	grace := ""
	if i.GetGrace() > 0 {
		grace = "grace " + took(time.Duration(i.GetGrace())*time.Second)
	}
	return join(": ", "begins", join(", ", append(aboutWords(i, o), grace)...))
}

// routeWords says where a pod goes and why.
func routeWords(r *eventpb.Route) string {
	to := "to " + clean(r.GetBackend())
	if r.GetBackendHandler() != "" {
		to += " as handler " + clean(r.GetBackendHandler())
	}
	if r.GetRule() == "" {
		return to
	}
	return fmt.Sprintf("%s; rule: %s; epoch %d", to, clean(r.GetRule()), r.GetEpoch())
}

func imageWords(i *eventpb.Intent) string {
	if i.GetImage() == "" {
		return ""
	}
	return "image " + Short(i.GetImage())
}

// outcomeWords says how an operation ended. withTime adds how long it took,
// where there is no column for that.
func outcomeWords(i *eventpb.Intent, out *eventpb.Outcome, o object, withTime bool) string {
	head := codeName(out.GetCode())
	if withTime {
		head += " in " + took(time.Duration(out.GetDuration()))
	}
	if out.GetRecovered() {
		head = "recovered: " + head
	}
	if out.GetCode() != 0 {
		// A message mostly has an id, and not the name that people know.
		about, left := join(", ", aboutWords(i, o)...), ""
		if out.GetSandbox() != nil || out.GetContainer() != nil {
			about, left = "", o.name()+" is left of it"
		}
		return join("; ", join(": ", head, about, clean(out.GetMessage())), left)
	}
	about := aboutWords(i, o)
	if i.GetMethod() == createContainer && o.containerID != "" {
		about = append(about, "id "+Short(o.containerID))
	}
	return join(": ", head, join(", ", about...))
}

// aboutWords says what an operation is about.
func aboutWords(i *eventpb.Intent, o object) []string {
	words := []string{o.name(), imageWords(i)}
	if i.GetMethod() == runPodSandbox && i.GetPod().GetAttempt() > 0 {
		words = append(words, fmt.Sprintf("attempt %d", i.GetPod().GetAttempt()))
	}
	return words
}

// shownObjects is how many objects of one observation people are shown.
const shownObjects = 4

// observedWords says what was seen, and whether it was bad.
func observedWords(before *store.State, obs *eventpb.Observed, objects []object) (words string, failed bool) {
	var parts []string
	quiet := 0
	for _, o := range objects {
		change := o.change(before)
		switch {
		case change == "":
			quiet++
		case len(parts) < shownObjects:
			parts = append(parts, change)
		}
		failed = failed || change != "" && o.failed(before)
	}
	if more := len(objects) - quiet - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("details of %s", count(quiet, "object")))
	}
	return join(": ", clean(obs.GetCause()), strings.Join(parts, "; ")), failed
}

// noticedWords says what a backend has met, and how often.
func noticedWords(n *eventpb.Noticed) string {
	words := join(": ", clean(n.GetName()), clean(n.GetMessage()))
	if n.GetCount() > 1 {
		words = fmt.Sprintf("%s (%d times)", words, n.GetCount())
	}
	return words
}

// forgottenWords says what the operator gave up.
func forgottenWords(f *eventpb.Forgotten) string {
	if f.GetWhole() {
		return "given up by the operator: the backend and " + count(len(f.GetSandboxIds()), "sandbox")
	}
	return "given up by the operator: " + count(len(f.GetSandboxIds()), "sandbox")
}

// compactedWords says what was taken out of the log.
func compactedWords(c *eventpb.Compacted) string {
	words := fmt.Sprintf("%d events, %d to %d, were taken out of the log", c.GetCount(), c.GetFirst(), c.GetLast())
	if c.GetLost() > 0 {
		words += fmt.Sprintf("; %d of them were lost to damage", c.GetLost())
	}
	repeats := uint64(0)
	for _, r := range c.GetRepeated() {
		repeats += r.GetCount()
	}
	if repeats > 0 {
		kept := "one that is kept"
		if n := len(c.GetRepeated()); n > 1 {
			kept = fmt.Sprintf("%d that are kept", n)
		}
		words += fmt.Sprintf("; with %s of %s", count(int(repeats), "repeat"), kept)
	}
	return words
}

// salvagedWords says what was done about a damaged log.
func salvagedWords(s *eventpb.Salvaged) string {
	words := join(": ", "the log was damaged", clean(s.GetCause()))
	words += fmt.Sprintf("; kept are the events up to %d", s.GetKept())
	if s.GetLost() > 0 {
		words += fmt.Sprintf(", lost those up to %d", s.GetLost())
	}
	if s.GetFile() != "" {
		words += "; the damaged file is " + clean(s.GetFile())
	}
	return words
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "x") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func healthWords(h *eventpb.Health) string {
	if h.GetUp() {
		return "up"
	}
	return join(": ", "down", clean(h.GetError()))
}

func policyWords(p *eventpb.Policy) string {
	words := fmt.Sprintf("default %s", clean(p.GetDefaultBackend()))
	if p.GetMigrationTo() != "" {
		words += fmt.Sprintf("; migration of %d%% to %s", p.GetMigrationPercent(), clean(p.GetMigrationTo()))
	}
	return fmt.Sprintf("%s; epoch %d, by %s", words, p.GetEpoch(), orNone(p.GetSource()))
}

func probeFailed(p *eventpb.Probed) bool { return p.GetCode() != 0 || p.GetExitCode() != 0 }

func probeWords(p *eventpb.Probed) string {
	if p.GetCode() != 0 {
		return fmt.Sprintf("%d × %s", p.GetCount(), codeName(p.GetCode()))
	}
	return fmt.Sprintf("%d × exit %d", p.GetCount(), p.GetExitCode())
}
