// Package stream is the client's side of exec, attach and port-forward, with
// SPDY, as the kubelet speaks it to the URL that a runtime returned.
package stream

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Dial upgrades a connection to url. The caller closes it.
func Dial(url, protocol string) (httpstream.Connection, error) {
	rt, err := spdy.NewRoundTripper(nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return rt.NewConnection(resp)
}

// Pipe sends in to the stdin of the exec or attach at url, closes it, and
// returns all of its stdout.
func Pipe(url, in string) (string, error) {
	conn, err := Dial(url, remotecommand.StreamProtocolV4Name)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	streams := make(map[string]httpstream.Stream)
	for _, kind := range []string{remotecommand.StreamTypeError, remotecommand.StreamTypeStdin, remotecommand.StreamTypeStdout} {
		h := http.Header{}
		h.Set(remotecommand.StreamType, kind)
		if streams[kind], err = conn.CreateStream(h); err != nil {
			return "", err
		}
	}
	stdin := streams[remotecommand.StreamTypeStdin]
	if _, err := io.WriteString(stdin, in); err != nil {
		return "", err
	}
	if err := stdin.Close(); err != nil {
		return "", err
	}
	out, err := io.ReadAll(streams[remotecommand.StreamTypeStdout])
	return string(out), err
}

// Forward sends in to a port through the port-forward at url, closes that
// side, and returns all that comes back.
func Forward(url string, port int, in string) (string, error) {
	conn, err := Dial(url, portforward.ProtocolV1Name)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	h := http.Header{}
	h.Set(portforward.PortHeader, strconv.Itoa(port))
	h.Set(portforward.PortForwardRequestIDHeader, "0")
	h.Set(portforward.StreamType, portforward.StreamTypeError)
	if _, err := conn.CreateStream(h); err != nil {
		return "", err
	}
	h.Set(portforward.StreamType, portforward.StreamTypeData)
	data, err := conn.CreateStream(h)
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(data, in); err != nil {
		return "", err
	}
	out, err := io.ReadAll(data)
	return string(out), err
}
