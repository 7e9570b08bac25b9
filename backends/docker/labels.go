package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crimux/crimux/backends"
)

// Labels of the adoption contract: dockershim's and cri-dockerd's.
const (
	labelType          = "io.kubernetes.docker.type"
	labelSandboxID     = "io.kubernetes.sandbox.id"
	labelLogPath       = "io.kubernetes.container.logpath"
	labelContainerName = "io.kubernetes.container.name"

	typeSandbox   = "podsandbox"
	typeContainer = "container"

	annotationPrefix = "annotation."
	dockerPrefix     = "io.kubernetes.docker."
)

// Labels of our own.
const (
	ownPrefix = "crimux.dev/"
	// labelOp is the operation that made the object.
	labelOp = ownPrefix + "op"
	// labelCreated is when, in nanoseconds: the Engine's lists only know the
	// second, and a list and a status must agree.
	labelCreated = ownPrefix + "created"
	// labelHandler is the sandbox's runtime handler.
	labelHandler = ownPrefix + "handler"
	// labelPID is the mode of the sandbox's pid namespace, where the Engine
	// does not show it.
	labelPID = ownPrefix + "pid"
	// labelImage is the container's image as it was asked for: the Engine
	// shows another once the tag has moved.
	labelImage = ownPrefix + "image"
	// labelCgroup is what is written to the container's cgroup once it runs:
	// see cgroupSettings.
	labelCgroup = ownPrefix + "cgroup"
	// labelForeign lists, as JSON, the labels that come from the image: the
	// Engine mixes them with the container's own, and they must be taken
	// neither for ours nor for the pod's.
	labelForeign = ownPrefix + "foreign"
)

// encodeLabels makes the Engine's labels of CRI labels and annotations, our
// own and those that the image brings along. It refuses keys with which a pod
// could pass something off as ours.
func encodeLabels(labels, annotations, own, image map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(labels)+len(annotations)+len(own)+1)
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if reservedLabel(k) {
			return nil, invalid(fmt.Sprintf("config.labels[%q]", k), "this key is reserved on the docker backend")
		}
		if _, ours := own[k]; ours && own[k] != labels[k] {
			return nil, invalid(fmt.Sprintf("config.labels[%q]", k), "this key is reserved on the docker backend")
		}
		out[k] = labels[k]
	}
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		if reservedAnnotation(k) {
			return nil, invalid(fmt.Sprintf("config.annotations[%q]", k), "this key is reserved on the docker backend")
		}
		out[annotationPrefix+k] = annotations[k]
	}
	maps.Copy(out, own)
	var foreign []string
	for k := range image {
		if _, ok := out[k]; !ok {
			foreign = append(foreign, k)
		}
	}
	if len(foreign) > 0 {
		slices.Sort(foreign)
		list, err := json.Marshal(foreign)
		if err != nil {
			return nil, fmt.Errorf("encode the labels of the image: %w", err)
		}
		out[labelForeign] = string(list)
	} else if _, ok := image[labelForeign]; ok {
		out[labelForeign] = "[]"
	}
	return out, nil
}

func reservedLabel(k string) bool {
	return reservedAnnotation(k) || k == labelSandboxID || k == labelLogPath
}

func reservedAnnotation(k string) bool {
	if k == backends.LabelRehearsal {
		// Ours, but the front's: it keeps the kubelet's requests from having it.
		return false
	}
	return strings.HasPrefix(k, annotationPrefix) || strings.HasPrefix(k, dockerPrefix) || strings.HasPrefix(k, ownPrefix)
}

// object is what the labels and the name of one of the Engine's containers say.
type object struct {
	identity
	kind                string // typeSandbox or typeContainer
	labels, annotations map[string]string
	op, handler, pid    string
	image, cgroup       string
	sandboxID, logPath  string
	created             int64 // 0 if it is not ours
}

// decodeObject reads name and labels; ok is false for a container that is no
// sandbox or container of a pod.
func decodeObject(name string, labels map[string]string) (o object, ok bool) {
	labels = withoutForeign(labels)
	o.kind = labels[labelType]
	if o.kind != typeSandbox && o.kind != typeContainer {
		return object{}, false
	}
	o.identity, ok = parseName(name)
	if !ok || (o.kind == typeSandbox) != (o.identity.container == "") {
		return object{}, false
	}
	o.op, o.handler, o.pid, o.image = labels[labelOp], labels[labelHandler], labels[labelPID], labels[labelImage]
	o.sandboxID, o.logPath, o.cgroup = labels[labelSandboxID], labels[labelLogPath], labels[labelCgroup]
	if ns, err := strconv.ParseInt(labels[labelCreated], 10, 64); err == nil {
		o.created = ns
	}
	o.labels, o.annotations = decodeLabels(o.kind, labels)
	return o, true
}

// decodeLabels takes the CRI's labels and annotations out of the Engine's.
func decodeLabels(kind string, all map[string]string) (labels, annotations map[string]string) {
	labels, annotations = map[string]string{}, map[string]string{}
	for k, v := range all {
		if a, ok := strings.CutPrefix(k, annotationPrefix); ok {
			annotations[a] = v
			continue
		}
		if reservedLabel(k) || (kind == typeSandbox && k == labelContainerName) {
			continue
		}
		labels[k] = v
	}
	return labels, annotations
}

// withoutForeign leaves out what came from the image.
func withoutForeign(labels map[string]string) map[string]string {
	list, ok := labels[labelForeign]
	if !ok {
		return labels
	}
	var foreign []string
	if err := json.Unmarshal([]byte(list), &foreign); err != nil {
		return labels // written by somebody else
	}
	out := maps.Clone(labels)
	for _, k := range foreign {
		delete(out, k)
	}
	return out
}

// createdAt is the CRI's created_at: ours where we know it, else the Engine's.
func (o object) createdAt(engine time.Time) int64 {
	if o.created != 0 {
		return o.created
	}
	return nanos(engine)
}
