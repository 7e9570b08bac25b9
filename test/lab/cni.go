package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// cniBinDirs are where packages and release archives put the CNI plugins.
var cniBinDirs = []string{"/usr/lib/cni", "/opt/cni/bin"}

// presentCNIBinDirs keeps the folders that hold the plugins the lab's network needs.
func presentCNIBinDirs() []string {
	var out []string
	for _, d := range cniBinDirs {
		if _, err := exec.LookPath(filepath.Join(d, "bridge")); err == nil {
			out = append(out, d)
		}
	}
	return out
}

type object = map[string]any

// writeCNI writes the network every pod of this lab joins: a bridge and an address pool of the lab's own.
func (s site) writeCNI(subnet netip.Prefix) error {
	conf := object{
		"cniVersion": "1.0.0",
		"name":       s.name,
		"plugins": []object{
			{
				"type": "bridge", "bridge": s.name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": object{
					"type":    "host-local",
					"ranges":  [][]object{{{"subnet": subnet.String()}}},
					"routes":  []object{{"dst": "0.0.0.0/0"}},
					"dataDir": s.path("cni/ipam"),
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the CNI network: %w", err)
	}
	if err := os.WriteFile(s.path("cni/net.d/10-lab.conflist"), b, 0o644); err != nil {
		return fmt.Errorf("write the CNI network: %w", err)
	}
	return nil
}
