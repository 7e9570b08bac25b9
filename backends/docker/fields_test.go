package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type fate string

const (
	isTranslated    fate = "translated"
	isRefused       fate = "refused"
	isHarmless      fate = "harmless"
	isUnimplemented fate = "unimplemented"
)

// fates are the tables by path; whole messages end in "...".
func fates(t *testing.T) map[string]fate {
	t.Helper()
	all := map[string]fate{}
	add := func(path string, f fate) {
		if old, ok := all[path]; ok {
			t.Errorf("%s: %s and %s", path, old, f)
		}
		all[path] = f
	}
	for _, p := range translatedFields {
		add(p, isTranslated)
	}
	for p := range refusedFields {
		add(p, isRefused)
	}
	for p, why := range harmlessFields {
		if why == "" {
			t.Errorf("%s: harmless for no reason", p)
		}
		add(p, isHarmless)
	}
	for _, m := range unimplementedMethods {
		add(m+"...", isUnimplemented)
	}
	return all
}

// decided is what the tables say of a path: with its own name, or with the
// nearest whole message that it is in.
func decided(all map[string]fate, path string) (fate, bool) {
	if f, ok := all[path]; ok {
		return f, true
	}
	for p := path; ; {
		if f, ok := all[p+"..."]; ok {
			return f, true
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			return "", false
		}
		p = p[:i]
	}
}

// walk visits all fields of a message, at any depth.
func walk(path string, m protoreflect.MessageDescriptor, visit func(path string, f protoreflect.FieldDescriptor)) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		p := path + "." + string(f.Name())
		if f.IsList() {
			p += "[]"
		}
		visit(p, f)
		if f.Message() != nil && !f.IsMap() {
			walk(p, f.Message(), visit)
		}
	}
}

// methods are the requests of all methods of the CRI by the method's name.
func methods() map[string]protoreflect.MessageDescriptor {
	all := map[string]protoreflect.MessageDescriptor{}
	services := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			all[string(m.Name())] = m.Input()
		}
	}
	return all
}

// TestEveryField: somebody has decided about each field of each request, and
// the tables name nothing that is no field.
func TestEveryField(t *testing.T) {
	all := fates(t)
	unused := maps.Clone(all)
	requests := methods()
	if len(requests) != 43 {
		t.Errorf("%d methods, want those of CRI v0.37: decide about what is new", len(requests))
	}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		delete(unused, name+"...")
		walk(name, requests[name], func(path string, f protoreflect.FieldDescriptor) {
			delete(unused, path)
			delete(unused, path+"...")
			if _, ok := decided(all, path); !ok && (f.Message() == nil || f.IsMap()) {
				t.Errorf("%s: neither translated, refused nor harmless", path)
			}
		})
	}
	for p := range unused {
		t.Errorf("%s is no field of a request", p)
	}
}

// ableFacts are those of an Engine that can do whatever some Engine can.
func ableFacts() *facts {
	f := testFacts()
	f.api, f.version = "1.51", "28.5.2"
	f.apparmor, f.selinux, f.cdi, f.roNonRecursive, f.cgroupV2 = true, true, true, true, true
	f.runtimes["runc"] = true
	return f
}

func ableNode() nodeOptions {
	n := testNode()
	n.readFile = func(p string) ([]byte, error) { return json.Marshal(map[string]string{"defaultAction": p}) }
	return n
}

// effect is what a request makes of the Engine and the node, as text.
func effect(t *testing.T, req proto.Message) (string, error) {
	t.Helper()
	var out any
	switch r := req.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		s, err := translateSandbox(r, ableFacts(), ableNode())
		if err == nil {
			err = s.finish(image.InspectResponse{ID: "sha256:1"}, "op", engineTime("2024-01-01T00:00:00Z"))
		}
		if err != nil {
			return "", err
		}
		out = []any{s.id.name(), s.config, s.host, s.resolvConf, s.attach}
	case *runtimeapi.CreateContainerRequest:
		if err := checkCreate(r); err != nil {
			return "", err
		}
		s, err := translateContainer(r, testSandbox(), ableFacts(), ableNode())
		if err == nil {
			err = s.finish(image.InspectResponse{}, "op", engineTime("2024-01-01T00:00:00Z"))
		}
		if err != nil {
			return "", err
		}
		out = []any{s.id.name(), s.config, s.host, s.hostPaths, s.targetID}
	case *runtimeapi.UpdateContainerResourcesRequest:
		if r.Windows != nil {
			_, err := newBench(t).UpdateContainerResources(t.Context(), r)
			return "", err
		}
		u, err := translateUpdate(r.Linux, runningContainer(), ableFacts(), ableNode())
		if err != nil {
			return "", err
		}
		out = []any{u.resources, u.settings, u.score}
	case *runtimeapi.PullImageRequest:
		b := newBench(t)
		if _, err := b.PullImage(t.Context(), r); err != nil {
			return "", err
		}
		out = []any{b.engine.auth, slices.Sorted(maps.Keys(b.engine.images))}
	default:
		t.Fatalf("%T: no effect is known", req)
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}

func runningContainer() *found {
	return &found{InspectResponse: container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		ID: strings.Repeat("c", 64), State: &container.State{Running: true, Pid: 1}, HostConfig: &container.HostConfig{}}}}
}

// baseRequest is a request as a kubelet makes it.
func baseRequest(method string) proto.Message {
	switch method {
	case "RunPodSandbox":
		return runRequest(func(*runtimeapi.PodSandboxConfig) {})
	case "CreateContainer":
		r := createRequest(testSandbox().id)
		r.Config.Linux = &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				Seccomp: &runtimeapi.SecurityProfile{}, NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		}
		return r
	case "UpdateContainerResources":
		return &runtimeapi.UpdateContainerResourcesRequest{ContainerId: strings.Repeat("c", 64), Linux: &runtimeapi.LinuxContainerResources{CpuShares: 2}}
	case "PullImage":
		return &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "reg.example/app"}}
	}
	return nil
}

// seenElsewhere are translated fields that only a running server knows of.
var seenElsewhere = map[string]string{
	"CreateContainer.pod_sandbox_id":              "TestCreateContainerRefusals",
	"CreateContainer.sandbox_config.metadata.uid": "TestCreateContainerRefusals",
	"UpdateContainerResources.container_id":       "TestUpdate",
}

// TestTranslatedFields: a request with the field makes another request to the
// Engine than one without.
func TestTranslatedFields(t *testing.T) {
	eachField(t, isTranslated, func(t *testing.T, path string, without, with proto.Message) {
		if seenElsewhere[path] != "" {
			return
		}
		a, err := effect(t, without)
		if err != nil {
			t.Fatalf("without it: %v", err)
		}
		b, err := effect(t, with)
		if err != nil {
			t.Fatalf("with it: %v", err)
		}
		if a == b {
			t.Errorf("makes no difference: %s", a)
		}
	})
}

// TestHarmlessFields: a request with the field is the same to the Engine.
func TestHarmlessFields(t *testing.T) {
	eachField(t, isHarmless, func(t *testing.T, _ string, without, with proto.Message) {
		a, err := effect(t, without)
		if err != nil {
			t.Fatalf("without it: %v", err)
		}
		b, err := effect(t, with)
		if err != nil {
			t.Fatalf("with it: %v", err)
		}
		if a != b {
			t.Errorf("makes a difference: %s\n%s", a, b)
		}
	})
}

// TestRefusedFields: a request with the field is refused with its name.
func TestRefusedFields(t *testing.T) {
	eachField(t, isRefused, func(t *testing.T, path string, without, with proto.Message) {
		if _, err := effect(t, without); err != nil && !strings.HasPrefix(path, "UpdateContainerResources") {
			t.Fatalf("without it: %v", err)
		}
		_, err := effect(t, with)
		name := refusedName(path)
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), name) {
			t.Errorf("want InvalidArgument and %q: %v", name, err)
		}
	})
}

// refusedName is the name that an error gives to a refused field: its own, or
// that of the message that is refused as a whole, and of the first in a list.
func refusedName(path string) string {
	for p := path; ; p = p[:strings.LastIndexByte(p, '.')] {
		if refusedFields[p] == "" && refusedFields[p+"..."] == "" {
			continue
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(p, "[]"), ".")
		return strings.ReplaceAll(name, "[]", "[0]")
	}
}

// eachField makes of each field of a fate two requests, without and with it.
func eachField(t *testing.T, want fate, check func(t *testing.T, path string, without, with proto.Message)) {
	all := fates(t)
	for method, request := range methods() {
		if baseRequest(method) == nil {
			continue
		}
		walk(method, request, func(path string, f protoreflect.FieldDescriptor) {
			if got, _ := decided(all, path); got != want || f.Message() != nil && !f.IsMap() && all[path+"..."] == "" {
				return
			}
			t.Run(path, func(t *testing.T) {
				without := baseRequest(method)
				for _, prefix := range slices.Sorted(maps.Keys(prepared)) {
					if strings.HasPrefix(path, prefix) {
						prepared[prefix](without)
					}
				}
				with := proto.Clone(without)
				setField(with.ProtoReflect(), strings.Split(path, ".")[1:], sampleValues[path])
				check(t, path, without, with)
			})
		})
	}
}

// setField sets a field to a value, or where that is nil to one of its kind.
// In a list it is that of the first element; an element of a list of no
// messages is added.
func setField(m protoreflect.Message, path []string, value any) {
	f := m.Descriptor().Fields().ByName(protoreflect.Name(strings.TrimSuffix(path[0], "[]")))
	switch {
	case f.IsList() && f.Message() != nil:
		list := m.Mutable(f).List()
		if list.Len() == 0 {
			list.AppendMutable()
		}
		if len(path) > 1 {
			setField(list.Get(0).Message(), path[1:], value)
		}
	case f.IsList():
		list := m.Mutable(f).List()
		list.Append(sample(f, value))
	case f.IsMap():
		if value == nil {
			value = map[string]string{"k": "v"}
		}
		for k, v := range value.(map[string]string) {
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString(v))
		}
	case f.Message() != nil:
		below := m.Mutable(f).Message()
		if len(path) > 1 {
			setField(below, path[1:], value)
		}
	default:
		m.Set(f, sample(f, value))
	}
}

// sample is a value of a field's kind that is not the default.
func sample(f protoreflect.FieldDescriptor, value any) protoreflect.Value {
	if value != nil {
		return protoreflect.ValueOf(value)
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x1")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x1"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(7)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(7)
	}
	panic(fmt.Sprintf("%s: no sample of kind %s", f.FullName(), f.Kind()))
}

// TestDocumentedFields: the documentation names each refused field and each
// method that is not there.
func TestDocumentedFields(t *testing.T) {
	b, err := os.ReadFile("../../docs/docker.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for p := range refusedFields {
		p = strings.TrimSuffix(strings.TrimSuffix(p, "..."), "[]")
		if name := p[strings.LastIndexByte(p, '.')+1:]; !strings.Contains(text, "`"+name+"`") {
			t.Errorf("`%s` is refused and not in docs/docker.md", name)
		}
	}
	for _, m := range unimplementedMethods {
		if !strings.Contains(text, m) {
			t.Errorf("%s is not in docs/docker.md", m)
		}
	}
}

// TestUnimplementedMethods: they say so, and why.
func TestUnimplementedMethods(t *testing.T) {
	b := newBench(t)
	for _, m := range unimplementedMethods {
		_, err := b.invoke("/runtime.v1.RuntimeService/"+m, &runtimeapi.VersionRequest{})
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), m) || !strings.Contains(err.Error(), "experimental") {
			t.Errorf("%s: %v", m, err)
		}
	}
}
