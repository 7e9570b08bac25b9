package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// containerd2 is the containerd 2.x that [V2] builds.
const containerd2 = "v2.4.2"

// cacheDir is where the lab keeps what takes long to make, from one run to the next.
func cacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/cache" // without HOME, as under a service manager
	}
	return filepath.Join(base, "crimux-lab")
}

// lockCache keeps labs that start at the same time from making the same thing twice, or half.
func lockCache() (unlock func(), err error) {
	if err := os.MkdirAll(cacheDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the lab's cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cacheDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the lab's cache: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the lab's cache: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// cached returns the cache's folder of that name; make fills it the first time. A folder that is there is
// complete, since it gets its name only when make has succeeded.
func cached(folder string, make func(dir string) error) (string, error) {
	final := filepath.Join(cacheDir(), folder)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := lockCache()
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	tmp, err := os.MkdirTemp(cacheDir(), folder+".")
	if err != nil {
		return "", fmt.Errorf("fill the lab's cache: %w", err)
	}
	if err := make(tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("fill the lab's cache: %w", err)
	}
	return final, nil
}

// Prefetch fills the lab's cache with all that labs download, and returns its folder: labs that are shown it then
// start without a network.
func Prefetch(ctx context.Context, w io.Writer) (dir string, err error) {
	if _, err := fetchUserland(ctx, w); err != nil {
		return "", err
	}
	if _, err := buildContainerd2(ctx, w); err != nil {
		return "", err
	}
	return cacheDir(), nil
}

// buildContainerd2 returns the folder with containerd 2.x and its shim, building them the first time.
func buildContainerd2(ctx context.Context, w io.Writer) (string, error) {
	return cached("containerd-"+containerd2+"-"+runtime.GOARCH, func(dir string) error {
		fmt.Fprintf(w, "lab: building containerd %s (once; takes a minute or more)\n", containerd2)
		const module = "github.com/containerd/containerd/v2/cmd/"
		cmd := exec.CommandContext(ctx, "go", "install", "-tags", "no_btrfs,no_zfs,no_devmapper,no_aufs",
			module+"containerd@"+containerd2, module+"containerd-shim-runc-v2@"+containerd2)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build containerd %s: %w: %s", containerd2, err, out)
		}
		return nil
	})
}

// fetchUserland returns a folder with busybox and its libraries below root/ and the list of its applets. It is
// the package's dynamic busybox even where another is installed: the static one runs applets inside its shell.
func fetchUserland(ctx context.Context, w io.Writer) (string, error) {
	return cached("busybox-"+runtime.GOARCH, func(dir string) error {
		fmt.Fprintf(w, "lab: downloading busybox for the lab's images\n")
		if err := downloadBusybox(ctx, dir); err != nil {
			return err
		}
		debs, err := filepath.Glob(filepath.Join(dir, "busybox_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("download busybox: want one package, have %d: %w", len(debs), err)
		}
		deb := filepath.Join(dir, "deb")
		if err := run(ctx, dir, "dpkg", "-x", debs[0], deb); err != nil {
			return fmt.Errorf("unpack busybox: %w", err)
		}
		if err := layUserland(ctx, filepath.Join(deb, "bin/busybox"), dir); err != nil {
			return err
		}
		return errors.Join(os.RemoveAll(deb), os.Remove(debs[0]))
	})
}

func downloadBusybox(ctx context.Context, dir string) error {
	first := run(ctx, dir, "apt-get", "download", "-qq", "busybox")
	if first == nil {
		return nil
	}
	// A bare machine has no package lists yet, or stale ones.
	if err := run(ctx, dir, "apt-get", "update", "-qq"); err != nil {
		return errors.Join(first, err)
	}
	return run(ctx, dir, "apt-get", "download", "-qq", "busybox")
}

var libraryPath = regexp.MustCompile(`/\S+\.so\S*`)

// layUserland puts busybox and the libraries it is linked with below dir/root, at the paths they are sought.
func layUserland(ctx context.Context, busybox, dir string) error {
	applets, err := output(ctx, dir, busybox, "--list")
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "applets"), applets, 0o644); err != nil {
		return fmt.Errorf("keep busybox's applets: %w", err)
	}
	linked, err := exec.CommandContext(ctx, "ldd", busybox).CombinedOutput()
	if err != nil && !strings.Contains(string(linked), "not a dynamic executable") {
		return fmt.Errorf("find busybox's libraries: %w: %s", err, linked)
	}
	files := map[string]string{"bin/busybox": busybox}
	for _, lib := range libraryPath.FindAllString(string(linked), -1) {
		files[strings.TrimPrefix(lib, "/")] = lib
	}
	for to, from := range files {
		if err := copyFile(filepath.Join(dir, "root", to), from); err != nil {
			return fmt.Errorf("keep busybox: %w", err)
		}
	}
	return nil
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
