package cni

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/containernetworking/cni/pkg/version"
)

// TestAddressesOfResults of various shapes: those of the pod's interface, in
// the plugins' order.
func TestAddressesOfResults(t *testing.T) {
	for name, c := range map[string]struct {
		result string
		want   []string
	}{
		"dual stack, IPv6 first": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"fd00::2/64","interface":0},{"address":"10.0.0.2/24","interface":0}]}`,
			[]string{"fd00::2", "10.0.0.2"}},
		"no interface said": {
			`{"cniVersion":"0.3.1","interfaces":[{"name":"cali1"}],"ips":[{"version":"4","address":"10.0.0.2/32"},{"version":"6","address":"fd00::2/128"}]}`,
			[]string{"10.0.0.2", "fd00::2"}},
		"one interface said of two": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"fd00::2/64","interface":0},{"address":"10.0.0.2/24"}]}`,
			[]string{"fd00::2", "10.0.0.2"}},
		"no sandbox said": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0"}],"ips":[{"address":"10.0.0.1/24","interface":0},{"address":"10.0.0.2/24","interface":1}]}`,
			[]string{"10.0.0.2"}},
		"the host has an eth0 too": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"},{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"192.0.2.1/24","interface":0},{"address":"10.0.0.2/24","interface":1}]}`,
			[]string{"10.0.0.2"}},
		"loopback and others": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/n"},{"name":"eth0","sandbox":"/n"},{"name":"net1","sandbox":"/n"}],
			  "ips":[{"address":"127.0.0.1/8","interface":0},{"address":"10.0.0.2/24","interface":1},{"address":"10.1.0.2/24","interface":2}]}`,
			[]string{"10.0.0.2"}},
		"the oldest form": {`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"},"ip6":{"ip":"fd00::2/64"}}`, []string{"10.0.0.2", "fd00::2"}},
		"none":            {`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}]}`, nil},
		"only the host's": {`{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"}],"ips":[{"address":"10.0.0.1/24","interface":0}]}`, nil},
	} {
		var v version.ConfigDecoder
		in, err := v.Decode([]byte(c.result))
		must(t, err)
		r, err := version.NewResult(in, []byte(c.result))
		must(t, err)
		var want []netip.Addr
		for _, a := range c.want {
			want = append(want, netip.MustParseAddr(a))
		}
		got, err := convert(r, defaultIfName)
		if (err == nil) != (want != nil) || !reflect.DeepEqual(got.IPs, want) {
			t.Errorf("%s: %v, %v; want %v", name, got.IPs, err, want)
		}
	}
}
