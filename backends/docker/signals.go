package docker

import (
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// signalName is the Engine's name of a stop signal; "" for the default.
func signalName(field string, s runtimeapi.Signal) (string, error) {
	if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return "", nil
	}
	name, ok := runtimeapi.Signal_name[int32(s)]
	if !ok {
		return "", invalid(field, "%d: unknown", s)
	}
	return engineSignal(name), nil
}

// engineSignal turns SIGNAL_SIGRTMINPLUS1 into SIGRTMIN+1.
func engineSignal(enum string) string {
	name := strings.TrimPrefix(enum, "SIGNAL_")
	return strings.NewReplacer("MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(name)
}

// signals are the stop signals by the Engine's name.
var signals = func() map[string]runtimeapi.Signal {
	all := map[string]runtimeapi.Signal{}
	for n, name := range runtimeapi.Signal_name {
		if n != int32(runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT) {
			all[engineSignal(name)] = runtimeapi.Signal(n)
		}
	}
	return all
}()

// stopSignal is the signal that a container is stopped with.
func stopSignal(engine string) runtimeapi.Signal {
	if engine == "" {
		return runtimeapi.Signal_SIGNAL_SIGTERM
	}
	return signals["SIG"+strings.TrimPrefix(strings.ToUpper(engine), "SIG")]
}
