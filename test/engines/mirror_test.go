package main

import "testing"

func TestMirror(t *testing.T) {
	for urls, want := range map[string]string{
		"":                               defaultMirror,
		"http://a/debian/\nhttp://b/\n":  "http://a/debian/",
		"mirror+file:/etc/list\n":        defaultMirror,
		"cdrom://x\nhttps://b/debian/\n": "https://b/debian/",
		"file:/srv/debian/":              "file:/srv/debian/",
	} {
		if got := pickMirror(urls); got != want {
			t.Errorf("of %q %q is picked, want %q", urls, got, want)
		}
	}
	for said, want := range map[string]string{"": "", "\n": "", "DIRECT\n": "", "http://p:3142\n": "http://p:3142"} {
		if got := pickProxy(said); got != want {
			t.Errorf("of %q the proxy %q is picked, want %q", said, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	for said, want := range map[string]string{
		"Docker version 26.1.5+dfsg1, build 411e817\n":                 "26.1.5+dfsg1",
		"containerd github.com/containerd/containerd/v2 2.1.9+unknown": "2.1.9+unknown",
		"runc version 1.3.6+ds1\ncommit: x\n":                          "1.3.6+ds1",
		"nothing to see":                                               "nothing to see",
	} {
		if got := version(said); got != want {
			t.Errorf("of %q the version is %q, want %q", said, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(nil); err != nil || len(all) != len(engines) {
		t.Errorf("no names choose %v, %v", all, err)
	}
	if one, err := choose([]string{"sid"}); err != nil || len(one) != 1 || one[0].release != "sid" {
		t.Errorf("sid chooses %v, %v", one, err)
	}
	if _, err := choose([]string{"buzz"}); err == nil {
		t.Error("an engine that is not there is chosen")
	}
}
