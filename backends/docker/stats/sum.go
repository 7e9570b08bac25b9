package stats

// Sum is what several containers use together. There is no pressure and no
// limit of them all; a rate is known only if each one's is.
func Sum(parts []*Usage) *Usage {
	out := &Usage{}
	cores := true
	for _, u := range parts {
		if u.Time.After(out.Time) {
			out.Time = u.Time
		}
		if u.CPU != nil {
			if out.CPU == nil {
				out.CPU = &CPU{}
			}
			out.CPU.Total += u.CPU.Total
			cores = cores && add(&out.CPU.Cores, u.CPU.Cores)
		}
		if u.Memory != nil {
			if out.Memory == nil {
				out.Memory = &Memory{}
			}
			out.Memory.add(u.Memory)
		}
		add(&out.Processes, u.Processes)
	}
	if !cores {
		out.CPU.Cores = nil
	}
	return out
}

func (m *Memory) add(o *Memory) {
	m.Usage += o.Usage
	m.WorkingSet += o.WorkingSet
	m.RSS += o.RSS
	m.Faults += o.Faults
	m.MajorFaults += o.MajorFaults
}

// add adds what is known, and reports whether it is.
func add(to **uint64, n *uint64) bool {
	if n == nil {
		return false
	}
	if *to == nil {
		*to = new(uint64)
	}
	**to += *n
	return true
}
