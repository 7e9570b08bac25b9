package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"google.golang.org/grpc"

	"github.com/crimux/crimux/policy"
)

// sender sends records. rejected says that the collector has taken the
// request, and does not want some of its records: sending them again is of no
// use. A request that the collector does not want as it is, is a refusedError.
type sender interface {
	send(ctx context.Context, batch []item) (rejected, err error)
	close() error
}

// otlp sends records to a collector.
type otlp struct {
	exporter sdklog.Exporter
	// taken is set when the collector has answered that it took a request:
	// the exporter's error does not tell that from a failure.
	taken *atomic.Bool
	// refused is set when it has answered that it will never take it.
	refused *atomic.Bool
	secrets []string
}

// newOTLP returns a sender. All that the environment could say to the
// exporter is said here, since the configuration is to be the one place.
func newOTLP(ctx context.Context, cfg policy.Sink) (*otlp, error) {
	o := &otlp{taken: new(atomic.Bool), refused: new(atomic.Bool)}
	headers := make(map[string]string)
	for _, h := range cfg.Headers {
		headers[h.Key] = string(h.Value)
		if h.Value != "" {
			o.secrets = append(o.secrets, string(h.Value))
		}
	}
	var err error
	if cfg.Protocol == policy.ProtocolHTTP {
		o.exporter, err = otlploghttp.New(ctx,
			otlploghttp.WithEndpointURL(withPath(cfg.Endpoint)),
			otlploghttp.WithHeaders(headers),
			otlploghttp.WithTimeout(sendTime),
			otlploghttp.WithCompression(otlploghttp.GzipCompression),
			otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: false}),
			otlploghttp.WithHTTPClient(&http.Client{Transport: o.watchHTTP(), CheckRedirect: noRedirect, Timeout: sendTime}),
		)
	} else {
		o.exporter, err = otlploggrpc.New(ctx,
			otlploggrpc.WithEndpointURL(cfg.Endpoint),
			otlploggrpc.WithHeaders(headers),
			otlploggrpc.WithTimeout(sendTime),
			otlploggrpc.WithCompressor("gzip"),
			otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: false}),
			otlploggrpc.WithDialOption(grpc.WithChainUnaryInterceptor(o.watchGRPC)),
		)
	}
	return o, o.hide(err)
}

// withPath adds the path that collectors have for logs, where there is none.
func withPath(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || strings.Trim(u.Path, "/") != "" {
		return endpoint // The exporter says what is wrong with it.
	}
	return u.JoinPath("v1", "logs").String()
}

// noRedirect keeps headers from going elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// send implements sender.
func (o *otlp) send(ctx context.Context, batch []item) (rejected, err error) {
	records := make([]sdklog.Record, len(batch))
	for i := range batch {
		records[i] = batch[i].record
	}
	o.taken.Store(false)
	o.refused.Store(false)
	err = o.hide(o.exporter.Export(ctx, records))
	if o.taken.Load() {
		return err, nil
	}
	if err == nil {
		err = errors.New("the collector did not answer")
	}
	if o.refused.Load() {
		err = refusedError{err}
	}
	return nil, err
}

func (o *otlp) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return o.exporter.Shutdown(ctx)
}

// watchGRPC sees whether the collector took a request.
func (o *otlp) watchGRPC(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	o.taken.Store(err == nil)
	o.refused.Store(refusesGRPC(err))
	return err
}

// watchHTTP is a transport that sees whether the collector took a request.
func (o *otlp) watchHTTP() http.RoundTripper {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := t.RoundTrip(r)
		o.taken.Store(err == nil && resp.StatusCode >= 200 && resp.StatusCode < 300)
		o.refused.Store(err == nil && refusesHTTP(resp.StatusCode))
		return resp, err
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// hide takes the headers' values out of an error: a collector may quote them.
func (o *otlp) hide(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, s := range o.secrets {
		text = strings.ReplaceAll(text, s, policy.Secret(s).String())
	}
	return fmt.Errorf("%s", text)
}

// compact takes the blanks out of JSON.
func compact(b []byte) string {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b) // It is JSON: protobuf made it.
	}
	return out.String()
}
