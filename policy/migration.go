package policy

import "fmt"

// fault is what is wrong with one key of a migration.
type fault struct{ key, message string }

// faults finds what is wrong with a migration under a configuration.
func (m Migration) faults(c *Config) []fault {
	var faults []fault
	add := func(key, format string, args ...any) {
		faults = append(faults, fault{key, fmt.Sprintf(format, args...)})
	}
	if m.Percent < 0 || m.Percent > 100 {
		add("percent", "%d is not between 0 and 100", m.Percent)
	}
	if err := checkBackendHandler(m.BackendHandler); err != nil {
		add("backendHandler", "%s", err)
	}
	switch {
	case m.To == "":
		if m.Percent != 0 || m.BackendHandler != "" {
			add("to", "is missing: write the name of the backend that pods are to move to, or remove the migration")
		}
	case m.To == c.Default:
		add("to", "%s is the default already: name the backend that pods are to move to", quote(m.To))
	default:
		if err := c.checkName(m.To); err != nil {
			add("to", "%s", err)
		}
	}
	return faults
}

// WithMigration returns a copy of the configuration in which m takes the place
// of its migration; the zero Migration ends it. With it a migration decided at
// run time is checked and applied as one from the file would be. The error is
// an *InvalidError without file and lines. The copy shares what it points to
// with c, which is not changed.
func (c *Config) WithMigration(m Migration) (*Config, error) {
	var problems []Problem
	for _, f := range m.faults(c) {
		problems = append(problems, Problem{Key: join("migration", f.key), Message: f.message})
	}
	if err := invalid(problems); err != nil {
		return nil, err
	}
	changed := *c
	changed.Migration = m
	return &changed, nil
}
