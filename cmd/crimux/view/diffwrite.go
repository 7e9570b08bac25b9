package view

import (
	"fmt"
	"io"
)

// WriteDiff writes a difference for people.
func WriteDiff(w io.Writer, d *Diff, colour bool) error {
	if _, err := fmt.Fprintf(w, "from event %d, %s\nto   event %d, %s\n", d.From.Seq, Exact(d.From.Time), d.To.Seq, Exact(d.To.Time)); err != nil {
		return err
	}
	if d.Empty() {
		_, err := fmt.Fprintln(w, "\nno pod, backend or policy changed")
		return err
	}
	if d.Rebooted {
		if _, err := fmt.Fprintln(w, "\nthe node was rebooted between them"); err != nil {
			return err
		}
	}
	pods := NewTable(w, colour, "POD", "CHANGE", "BACKEND", "WHAT")
	for _, p := range d.Pods {
		if err := p.rows(pods); err != nil {
			return err
		}
	}
	backends := NewTable(w, colour, "BACKEND", "HEALTH")
	for _, b := range d.Backends {
		if err := backends.Row(b.To == "down", orNone(b.Name), b.words()); err != nil {
			return err
		}
	}
	ops := NewTable(w, colour, "UNDER WAY", "POD", "BACKEND", "SEQ", "ID")
	for _, o := range d.Began {
		if err := ops.Row(false, orNone(o.Method), orNone(o.Pod), orNone(o.Backend), fmt.Sprint(o.Seq), clean(o.Op)); err != nil {
			return err
		}
	}
	for _, t := range []*Table{pods, backends, ops} {
		if len(t.pending) == 0 && !t.begun {
			continue
		}
		if !t.begun {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if d.Policy == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "\npolicy: %s\n", d.Policy)
	return err
}

// rows writes one row for each object; the pod is named in the first.
func (p PodDiff) rows(t *Table) error {
	pod, change, where := clean(p.Namespace+"/"+p.Name), p.Change, orNone(p.To)
	switch {
	case p.Change == moved:
		where = clean(p.From + " → " + p.To)
	case p.To == "":
		where = orNone(p.From)
	}
	for _, o := range p.Objects {
		if err := t.Row(o.failed, pod, change, where, o.words()); err != nil {
			return err
		}
		pod, change, where = "", "", ""
	}
	return nil
}

func (o ObjectDiff) words() string {
	name := "sandbox " + Short(o.ID)
	if o.Kind == "container" {
		name = "container " + containerName(o.Name, o.ID, o.Attempt)
	} else if o.Attempt > 0 {
		name = fmt.Sprintf("%s attempt %d", name, o.Attempt)
	}
	var words string
	switch {
	case o.From == "":
		words = o.To + ", new"
	case o.To == "":
		words = o.From + " → gone"
	case o.From == o.To && o.Exit == "":
		words = o.To + ", restarted"
	case o.From == o.To:
		words = o.To
	default:
		words = o.From + " → " + o.To
	}
	return join(", ", name+" "+words, o.Exit)
}

func (b BackendDiff) words() string {
	switch {
	case b.To == "":
		return b.From + " → forgotten"
	case b.From == "":
		return join(": ", b.To, clean(b.Error))
	case b.From == b.To:
		return join(": ", "still "+b.To, clean(b.Error))
	default:
		return join(": ", b.From+" → "+b.To, clean(b.Error))
	}
}
