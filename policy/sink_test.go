package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func TestSinks(t *testing.T) {
	c, err := Parse("config.yaml", []byte(two+`sinks:
  - {type: otlp, endpoint: "http://localhost:4317"}
  - name: central
    type: otlp
    endpoint: https://logs.example/v1/logs
    protocol: http
    headers: {authorization: Bearer abc, X-Tenant: "7"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Sink{
		{Name: "otlp", Type: SinkOTLP, Endpoint: "http://localhost:4317", Protocol: ProtocolGRPC},
		{Name: "central", Type: SinkOTLP, Endpoint: "https://logs.example/v1/logs", Protocol: ProtocolHTTP,
			Headers: []Header{{"authorization", "Bearer abc"}, {"X-Tenant", "7"}}},
	}
	if !reflect.DeepEqual(c.Sinks, want) {
		t.Errorf("got %v", c.Sinks)
	}
	// However a configuration is printed, its secrets are not.
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("a", "sink", c.Sinks[1], "value", c.Sinks[1].Headers[0].Value)
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{logged.String(), string(j), fmt.Sprintf("%v %+v %#v %s", c, c.Sinks, c.Sinks, c.Sinks[1].Headers[0].Value)} {
		if strings.Contains(text, "abc") {
			t.Errorf("a secret is in %s", text)
		}
	}
}

func TestCheckSinks(t *testing.T) {
	one := func(rest string) string { return two + "sinks:\n  - {" + rest + "}\n" }
	const sound = "type: otlp, endpoint: 'http://a:1'"
	runInvalid(t, []invalidCase{
		{"nothing", one(""), "config.yaml:8: sinks[0].type: is missing: write otlp\n" +
			"config.yaml:8: sinks[0].endpoint: is missing: write http://localhost:4317 or where the collector listens"},
		{"another type", one("type: kafka, endpoint: 'http://a:1'"), `config.yaml:8: sinks[0].type: "kafka" is not a type of sink: write otlp`},
		{"an unknown key", one(sound + ", topic: a"), `config.yaml:8: sinks[0].topic: unknown key (there are name, type, endpoint, protocol, headers)`},
		{"another protocol", one(sound + ", protocol: udp"), `config.yaml:8: sinks[0].protocol: "udp" is not a protocol of OTLP: write grpc or http`},
		{"a name", one(sound + ", name: ../../etc"), `config.yaml:8: sinks[0].name: "../../etc" cannot be a sink's name: lower-case letters, digits and - only, at most 63`},
		{"a name twice", two + "sinks: \n  - {" + sound + "}\n  - {" + sound + "}\n", `config.yaml:9: sinks[1].name: "otlp" is the name of the sink at line 8 already: give each its own`},
		{"no URL", one("type: otlp, endpoint: 'localhost:4317'"), "config.yaml:8: sinks[0].endpoint: is no URL of a collector: write it like http://localhost:4317, or https://collector.example:4317"},
		{"no port", one("type: otlp, endpoint: 'http://a'"), "config.yaml:8: sinks[0].endpoint: has no port: write it like http://localhost:4317"},
		{"a path over grpc", one("type: otlp, endpoint: 'http://a:1/v1/logs'"), "config.yaml:8: sinks[0].endpoint: must not have a path with protocol grpc: remove the path, or write protocol: http"},
		{"a password", one("type: otlp, endpoint: 'http://u:CANARY@a:1'"), "config.yaml:8: sinks[0].endpoint: must not hold a password: write it as a header"},
		{"a query", one("type: otlp, endpoint: 'http://a:1?key=CANARY'"), "config.yaml:8: sinks[0].endpoint: must not have a query or fragment: write scheme, host, port and, with protocol http, the path"},
		{"a header's name", one(sound + ", headers: {a b: CANARY}"), `config.yaml:8: sinks[0].headers."a b": is not a header's name: letters, digits and -_. only`},
		{"a header of the transport's", one(sound + ", headers: {Content-Type: CANARY}"), "config.yaml:8: sinks[0].headers.Content-Type: cannot be set: the transport sets it itself"},
		{"a header's value", one(sound + `, headers: {a: "CANARY\nb: c"}`), "config.yaml:8: sinks[0].headers.a: has a character that a header cannot hold: printable ASCII only"},
		{"a header's type", one(sound + ", headers: {a: 4711}"), "config.yaml:8: sinks[0].headers.a: want a string, found a whole number"},
	})
}
