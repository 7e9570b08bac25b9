package streaming

// InNamespace runs f on a thread in a network namespace, and waits for it.
// Nothing else ever runs there.
func InNamespace(path string, f func()) error {
	done := make(chan error, 1)
	go func() { done <- inNamespace(path, f) }()
	return <-done
}
