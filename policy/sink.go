package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// SinkType tells where a sink ships events.
type SinkType string

// SinkOTLP is an OpenTelemetry collector, or what takes logs as one does.
const SinkOTLP SinkType = "otlp"

// The protocols of an OTLP sink.
const (
	ProtocolGRPC = "grpc"
	ProtocolHTTP = "http"
)

// Sink is one place that events are shipped to.
type Sink struct {
	// Name is a DNS label, unique among the sinks. The position up to which
	// events were shipped is kept under it.
	Name string
	// Type is SinkOTLP.
	Type SinkType
	// Endpoint is the collector's URL, http or https.
	Endpoint string
	// Protocol is ProtocolGRPC or ProtocolHTTP.
	Protocol string
	// Headers are sent with each request.
	Headers []Header
}

// Header is one header of a sink's requests.
type Header struct {
	Key   string
	Value Secret
}

// Secret is a text that no message and no log shows.
type Secret string

// hidden is what is shown of a secret.
const hidden = "[hidden]"

// String implements fmt.Stringer.
func (Secret) String() string { return hidden }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return hidden }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// sink reads one element of the sinks.
func (r *reader) sink(c *Config) value {
	return func(key string, n *yaml.Node) {
		var kind string
		s := Sink{Name: string(SinkOTLP), Protocol: ProtocolGRPC}
		r.object(key, n,
			field{"name", r.text(&s.Name)},
			field{"type", r.text(&kind)},
			field{"endpoint", r.text(&s.Endpoint)},
			field{"protocol", r.text(&s.Protocol)},
			field{"headers", func(key string, n *yaml.Node) {
				r.entries(key, n, func(name, child string, n *yaml.Node) {
					var v string
					r.text(&v)(child, n)
					s.Headers = append(s.Headers, Header{name, Secret(v)})
				})
			}})
		s.Type = SinkType(kind)
		for _, name := range []string{"type", "endpoint"} {
			if child := join(key, name); !r.failed[key] && r.lines[child] == 0 {
				r.missing(key, name, map[string]string{"type": "otlp", "endpoint": "http://localhost:4317 or where the collector listens"}[name])
				r.failed[child] = true
			}
		}
		c.Sinks = append(c.Sinks, s)
	}
}

// checkSinks looks at the sinks.
func (r *reader) checkSinks(c *Config) {
	first := map[string]int{}
	for i, s := range c.Sinks {
		parent := fmt.Sprintf("sinks[%d]", i)
		if !r.readable(parent) {
			continue
		}
		line := r.line(parent, join(parent, "name"))
		switch earlier, again := first[s.Name]; {
		case !label.MatchString(s.Name):
			r.checkValue(parent, "name", fmt.Errorf("%s cannot be a sink's name: lower-case letters, digits and - only, at most 63", quote(s.Name)))
		case again:
			r.checkValue(parent, "name", fmt.Errorf("%s is the name of the sink at line %d already: give each its own", quote(s.Name), earlier))
		default:
			first[s.Name] = line
		}
		if s.Type != SinkOTLP {
			r.checkValue(parent, "type", fmt.Errorf("%s is not a type of sink: write otlp", quote(string(s.Type))))
		}
		if s.Protocol != ProtocolGRPC && s.Protocol != ProtocolHTTP {
			r.checkValue(parent, "protocol", fmt.Errorf("%s is not a protocol of OTLP: write grpc or http", quote(s.Protocol)))
		} else {
			r.checkValue(parent, "endpoint", checkCollector(s.Endpoint, s.Protocol))
		}
		for _, h := range s.Headers {
			r.checkValue(join(parent, "headers"), h.Key, checkHeader(h))
		}
	}
}

// checkCollector tells what keeps an address from being a collector's.
func checkCollector(endpoint, protocol string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return errors.New("is no URL of a collector: write it like http://localhost:4317, or https://collector.example:4317")
	case u.User != nil:
		return errors.New("must not hold a password: write it as a header")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("must not have a query or fragment: write scheme, host, port and, with protocol http, the path")
	case protocol == ProtocolGRPC && strings.Trim(u.Path, "/") != "":
		return errors.New("must not have a path with protocol grpc: remove the path, or write protocol: http")
	case protocol == ProtocolGRPC && u.Port() == "":
		return errors.New("has no port: write it like http://localhost:4317")
	}
	return nil
}

// reservedHeaders are those that the transport sets itself.
var reservedHeaders = []string{"content-type", "content-length", "content-encoding", "host", "user-agent", "te", "connection", "transfer-encoding"}

// checkHeader tells what keeps a header from being sent. It shows nothing of
// the value.
func checkHeader(h Header) error {
	inKey := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c)
	}
	name := strings.ToLower(h.Key)
	switch {
	case h.Key == "" || strings.ContainsFunc(h.Key, func(c rune) bool { return !inKey(c) }):
		return errors.New("is not a header's name: letters, digits and -_. only")
	case slices.Contains(reservedHeaders, name) || strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin"):
		return errors.New("cannot be set: the transport sets it itself")
	case strings.ContainsFunc(string(h.Value), func(c rune) bool { return c < ' ' || c > '~' }):
		return errors.New("has a character that a header cannot hold: printable ASCII only")
	}
	return nil
}
