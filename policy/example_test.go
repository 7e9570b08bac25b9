package policy_test

import (
	"fmt"

	"github.com/crimux/crimux/policy"
)

// empty is the state of a node on which nothing has happened yet.
type empty struct{}

func (empty) Epoch() uint64                           { return 1 }
func (empty) Decision(string) (policy.Decision, bool) { return policy.Decision{}, false }
func (empty) Live(string) (string, bool)              { return "", false }

func ExampleDecide() {
	config, err := policy.Load("testdata/pinned.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	config, err = config.WithMigration(policy.Migration{To: "containerd", Percent: 40})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, pod := range []policy.Pod{
		{UID: "0f0e9a34-3a53-4c5e-a0a5-2f3a1f0c8d11"},
		{UID: "d4735e3a-265e-46ee-a03f-59718b9b5d03"},
		{UID: "d4735e3a-265e-46ee-a03f-59718b9b5d03", Handler: "containerd"},
		{UID: "d4735e3a-265e-46ee-a03f-59718b9b5d03", Handler: "kata"},
	} {
		route, err := policy.Decide(pod, empty{}, config)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s (%s)\n", route.Backend, route.Rule)
	}
	// Output:
	// containerd (migration to containerd: bucket 26 < 40%)
	// docker (default: bucket 98 ≥ 40%)
	// containerd (handler containerd)
	// no route for runtime handler "kata": the configuration has routes for containerd, docker; correct the handler of the pod's RuntimeClass or add a route for it to the configuration
}

func ExampleParse() {
	_, err := policy.Parse("config.yaml", []byte(`apiVersion: crimux.dev/v1
kind: Config
backends:
  docker:
    type: docker
    cni: {confdir: /etc/cni/net.d}
default: dokcer
`))
	fmt.Println(err)
	// Output:
	// config.yaml:6: backends.docker.cni.confdir: unknown key (did you mean confDir?)
	// config.yaml:7: default: there is no backend "dokcer" (did you mean docker?)
}
