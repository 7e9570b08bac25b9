package docker

import (
	"fmt"
	"path"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// translateMounts carries over a container's bind mounts. They are structured
// all the way: a path with a colon in it is a path. Only those to be relabelled
// have to be texts, since the Engine knows no other way to ask for it.
func translateMounts(mounts []*runtimeapi.Mount, handler string, f *facts) (out []mount.Mount, binds []string, err error) {
	for i, m := range mounts {
		field := fmt.Sprintf("config.mounts[%d]", i)
		if err := checkMount(field, m, handler, f); err != nil {
			return nil, nil, err
		}
		propagation, err := translatePropagation(field+".propagation", m.GetPropagation())
		if err != nil {
			return nil, nil, err
		}
		if m.GetSelinuxRelabel() && f.selinux {
			binds = append(binds, relabelled(m, propagation))
			continue
		}
		out = append(out, mount.Mount{
			Type: mount.TypeBind, Source: m.GetHostPath(), Target: m.GetContainerPath(), ReadOnly: m.GetReadonly(),
			BindOptions: &mount.BindOptions{
				Propagation: propagation,
				// The CRI's readonly is the mount's own; the Engine's is that
				// of all mounts below, since version 25.
				ReadOnlyNonRecursive:   m.GetReadonly() && !m.GetRecursiveReadOnly() && f.roNonRecursive,
				ReadOnlyForceRecursive: m.GetRecursiveReadOnly(),
			},
		})
	}
	return out, binds, nil
}

// relabelled is the text of a mount whose source is to get the pod's SELinux
// label, which the pod's containers have in common through their ipc namespace.
func relabelled(m *runtimeapi.Mount, p mount.Propagation) string {
	mode := "rw"
	if m.GetReadonly() {
		mode = "ro"
	}
	return strings.Join([]string{m.GetHostPath(), m.GetContainerPath(), mode + ",Z," + string(p)}, ":")
}

// checkMount refuses what cannot be mounted.
func checkMount(field string, m *runtimeapi.Mount, handler string, f *facts) error {
	switch {
	case m.GetImage() != nil:
		return refused(field+".image", "image volumes cannot be mounted")
	case m.GetImageSubPath() != "":
		return refused(field+".image_sub_path", "image volumes cannot be mounted")
	case len(m.GetUidMappings()) > 0:
		return refused(field+".uidMappings", "the docker engine has no id-mapped mounts")
	case len(m.GetGidMappings()) > 0:
		return refused(field+".gidMappings", "the docker engine has no id-mapped mounts")
	case len(m.GetMountOptions()) > 0:
		return refused(field+".mount_options", "the docker engine takes no options for bind mounts")
	case m.GetSelinuxRelabel() && f.selinux && strings.Contains(m.GetHostPath()+m.GetContainerPath(), ":"):
		return refused(field+".selinux_relabel", "the docker engine relabels no path with a colon in it")
	case m.GetSelinuxRelabel() && f.selinux && m.GetRecursiveReadOnly():
		return refused(field+".selinux_relabel", "the docker engine relabels no mount that is to be recursively read-only")
	case !path.IsAbs(m.GetHostPath()) || strings.ContainsRune(m.GetHostPath(), 0):
		return invalid(field+".host_path", "%q is not an absolute path", m.GetHostPath())
	case !path.IsAbs(m.GetContainerPath()) || strings.ContainsRune(m.GetContainerPath(), 0) || path.Clean(m.GetContainerPath()) == "/":
		return invalid(field+".container_path", "%q is not an absolute path below the root", m.GetContainerPath())
	}
	if !m.GetRecursiveReadOnly() {
		return nil
	}
	switch {
	case !m.GetReadonly():
		return invalid(field+".recursive_read_only", "needs readonly")
	case m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return invalid(field+".recursive_read_only", "needs private propagation")
	case !f.recursiveReadOnly(handler):
		return refused(field+".recursive_read_only", "it needs Engine 25, Linux 5.12 and a runtime that knows it")
	}
	return nil
}

func translatePropagation(field string, p runtimeapi.MountPropagation) (mount.Propagation, error) {
	switch p {
	case runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return mount.PropagationRPrivate, nil
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		return mount.PropagationRSlave, nil
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		return mount.PropagationRShared, nil
	}
	return "", invalid(field, "%d: unknown", p)
}

// criBinds are a container's bind mounts that are written as texts: those of
// other shims, and those that were relabelled.
func criBinds(binds []string) []*runtimeapi.Mount {
	var out []*runtimeapi.Mount
	for _, b := range binds {
		parts := strings.Split(b, ":")
		if len(parts) < 2 || !path.IsAbs(parts[0]) {
			continue // a volume, or nothing that we could read
		}
		c := &runtimeapi.Mount{HostPath: parts[0], ContainerPath: parts[1]}
		for option := range strings.SplitSeq(strings.Join(parts[2:], ","), ",") {
			switch option {
			case "ro":
				c.Readonly = true
			case "z", "Z":
				c.SelinuxRelabel = true
			default:
				c.Propagation = max(c.Propagation, criPropagation(mount.Propagation(option)))
			}
		}
		out = append(out, c)
	}
	return out
}

func criPropagation(p mount.Propagation) runtimeapi.MountPropagation {
	switch p {
	case mount.PropagationRSlave, mount.PropagationSlave:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case mount.PropagationRShared, mount.PropagationShared:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// criMounts are a container's bind mounts as the CRI reports them.
func criMounts(h *container.HostConfig) []*runtimeapi.Mount {
	out := criBinds(h.Binds)
	for _, m := range h.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		c := &runtimeapi.Mount{HostPath: m.Source, ContainerPath: m.Target, Readonly: m.ReadOnly}
		if o := m.BindOptions; o != nil {
			c.RecursiveReadOnly, c.Propagation = o.ReadOnlyForceRecursive, criPropagation(o.Propagation)
		}
		out = append(out, c)
	}
	return out
}
