package proxy

import (
	"bytes"

	"github.com/crimux/crimux/proxy/wire"
)

// absoluteURL completes the URL of a session that names a host but no scheme,
// as cri-dockerd's do: a kubelet since 1.36 hands such a URL to a client of its
// own, which takes it for https. A runtime's streaming server speaks http unless
// it says otherwise. Any other URL is the backend's and stays as it is, one
// without a host too: nobody knows of what server it speaks.
func absoluteURL(answer wire.Message) wire.Message {
	url := answer.Bytes(1)
	if !bytes.HasPrefix(url, []byte("//")) {
		return answer
	}
	return answer.With("http:"+string(url), 1)
}
