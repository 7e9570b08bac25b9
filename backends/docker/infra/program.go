package infra

import "fmt"

// The program, in words, for both machines:
//
//	block SIGCHLD, SIGTERM, SIGINT
//	reap: while wait4(-1, NULL, WNOHANG, NULL) > 0 {}
//	wait: switch rt_sigtimedwait({SIGCHLD, SIGTERM, SIGINT}, NULL, NULL) {
//	      case SIGCHLD:             goto reap
//	      case negative (EINTR):    goto wait
//	      default:                  exit_group(0) }
//
// The signals are blocked and not handled: the kernel drops a signal to a
// namespace's init that has the default action, but queues a blocked one.
// It reaps before the first wait, for children that died while the signal was
// not blocked yet.

// machine is what the ELF file needs to know about a processor.
type machine struct {
	elf  uint16 // e_machine
	code []byte
}

var machines = map[string]machine{
	"amd64": {elf: 62, code: codeAMD64},
	"arm64": {elf: 183, code: codeARM64},
}

// Program returns the static ELF executable /pause for a GOARCH. The bytes are
// the caller's. It knows amd64 and arm64.
func Program(goarch string) ([]byte, error) {
	m, ok := machines[goarch]
	if !ok {
		return nil, fmt.Errorf("no built-in pod infra program for %s: name an image for it in podInfraImage", goarch)
	}
	return executable(m), nil
}
