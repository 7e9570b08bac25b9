package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// defaultMirror serves where the machine names none.
const defaultMirror = "http://deb.debian.org/debian"

// mirror is where packages come from.
type mirror struct{ url, proxy string }

// findMirror takes the mirror and the proxy that this machine's own packages come from.
func findMirror(ctx context.Context) (mirror, error) {
	urls, err := said(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian")
	if err != nil {
		return mirror{}, err
	}
	proxy, err := said(ctx, "apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy")
	if err != nil {
		return mirror{}, err
	}
	return mirror{pickMirror(urls), pickProxy(proxy)}, nil
}

// pickMirror is the first address that debootstrap understands too.
func pickMirror(urls string) string {
	for _, u := range strings.Fields(urls) {
		for _, scheme := range []string{"http://", "https://", "file:/"} {
			if strings.HasPrefix(u, scheme) {
				return u
			}
		}
	}
	return defaultMirror
}

// pickProxy knows apt's word for none.
func pickProxy(proxy string) string {
	p := strings.TrimSpace(proxy)
	if strings.EqualFold(p, "DIRECT") {
		return ""
	}
	return p
}

func said(ctx context.Context, command string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, command, args...).Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for the machine's mirror: %w", command, err)
	}
	return string(out), nil
}
