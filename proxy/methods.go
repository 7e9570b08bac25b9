package proxy

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// class says what a method is routed by.
type class int

const (
	// byHandler: a new sandbox, placed by the policy.
	byHandler class = iota + 1
	// bySandbox, byContainer: field 1 holds an id, which knows its backend.
	bySandbox
	byContainer
	// fanOut: every backend is asked and the answers are merged.
	fanOut
	// byImage: the backend of the pod that the image is for.
	byImage
	// nodeWide: answered by the front from what it knows of the backends.
	nodeWide
)

// recording says what of a call the log keeps.
type recording int

const (
	// asOperation: intent and outcome, both durable before the answer. The
	// zero value is a read, of which nothing is recorded.
	asOperation recording = iota + 1
	// behind: one event, written without anybody waiting for it.
	behind
	// counted: repeated equal results are one event.
	counted
)

// method is what the front knows of one CRI RPC.
type method struct {
	// full is the gRPC name, name the last part of it.
	full, name string
	class      class
	recording  recording
	// streams is set where the server streams.
	streams bool
	// unary is the full name of the list that a Stream* method is the
	// streaming form of: the two answer with wire-identical messages.
	unary string
	// joins is set where the identical call of a retry waits for the one in
	// flight instead of being sent as well.
	joins bool
	// undoes is set for Stop and Remove, which work even if the log does not.
	undoes bool
}

// idField is the field that every request routed by an id has the id in.
const idField protowire.Number = 1

// methods are the 43 RPCs of CRI v0.37 by their full name.
var methods = index([]method{
	{full: runtimeapi.RuntimeService_RunPodSandbox_FullMethodName, class: byHandler, recording: asOperation, joins: true},
	{full: runtimeapi.RuntimeService_RestorePod_FullMethodName, class: byHandler, recording: asOperation, joins: true},

	{full: runtimeapi.RuntimeService_StopPodSandbox_FullMethodName, class: bySandbox, recording: asOperation, undoes: true},
	{full: runtimeapi.RuntimeService_RemovePodSandbox_FullMethodName, class: bySandbox, recording: asOperation, undoes: true},
	{full: runtimeapi.RuntimeService_UpdatePodSandboxResources_FullMethodName, class: bySandbox, recording: asOperation},
	{full: runtimeapi.RuntimeService_CheckpointPod_FullMethodName, class: bySandbox, recording: asOperation},
	{full: runtimeapi.RuntimeService_CreateContainer_FullMethodName, class: bySandbox, recording: asOperation, joins: true},
	{full: runtimeapi.RuntimeService_PodSandboxStatus_FullMethodName, class: bySandbox},
	{full: runtimeapi.RuntimeService_PodSandboxStats_FullMethodName, class: bySandbox},
	{full: runtimeapi.RuntimeService_PortForward_FullMethodName, class: bySandbox, recording: behind},

	{full: runtimeapi.RuntimeService_StartContainer_FullMethodName, class: byContainer, recording: asOperation},
	{full: runtimeapi.RuntimeService_StopContainer_FullMethodName, class: byContainer, recording: asOperation, undoes: true},
	{full: runtimeapi.RuntimeService_RemoveContainer_FullMethodName, class: byContainer, recording: asOperation, undoes: true},
	{full: runtimeapi.RuntimeService_UpdateContainerResources_FullMethodName, class: byContainer, recording: asOperation},
	{full: runtimeapi.RuntimeService_CheckpointContainer_FullMethodName, class: byContainer, recording: asOperation},
	{full: runtimeapi.RuntimeService_ContainerStatus_FullMethodName, class: byContainer},
	{full: runtimeapi.RuntimeService_ContainerStats_FullMethodName, class: byContainer},
	{full: runtimeapi.RuntimeService_ExecSync_FullMethodName, class: byContainer, recording: counted},
	{full: runtimeapi.RuntimeService_Exec_FullMethodName, class: byContainer, recording: behind},
	{full: runtimeapi.RuntimeService_Attach_FullMethodName, class: byContainer, recording: behind},
	{full: runtimeapi.RuntimeService_ReopenContainerLog_FullMethodName, class: byContainer, recording: behind},

	{full: runtimeapi.RuntimeService_ListPodSandbox_FullMethodName, class: fanOut},
	{full: runtimeapi.RuntimeService_ListContainers_FullMethodName, class: fanOut},
	{full: runtimeapi.RuntimeService_ListContainerStats_FullMethodName, class: fanOut},
	{full: runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName, class: fanOut},
	{full: runtimeapi.RuntimeService_ListMetricDescriptors_FullMethodName, class: fanOut},
	{full: runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName, class: fanOut},
	{full: runtimeapi.ImageService_ListImages_FullMethodName, class: fanOut},
	{full: runtimeapi.ImageService_ImageFsInfo_FullMethodName, class: fanOut},

	{full: runtimeapi.RuntimeService_StreamPodSandboxes_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.RuntimeService_ListPodSandbox_FullMethodName},
	{full: runtimeapi.RuntimeService_StreamContainers_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.RuntimeService_ListContainers_FullMethodName},
	{full: runtimeapi.RuntimeService_StreamContainerStats_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.RuntimeService_ListContainerStats_FullMethodName},
	{full: runtimeapi.RuntimeService_StreamPodSandboxStats_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.RuntimeService_ListPodSandboxStats_FullMethodName},
	{full: runtimeapi.RuntimeService_StreamPodSandboxMetrics_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.RuntimeService_ListPodSandboxMetrics_FullMethodName},
	{full: runtimeapi.ImageService_StreamImages_FullMethodName, class: fanOut, streams: true, unary: runtimeapi.ImageService_ListImages_FullMethodName},
	{full: runtimeapi.RuntimeService_GetContainerEvents_FullMethodName, class: fanOut, streams: true},

	{full: runtimeapi.ImageService_ImageStatus_FullMethodName, class: byImage},
	{full: runtimeapi.ImageService_PullImage_FullMethodName, class: byImage, recording: asOperation},
	{full: runtimeapi.ImageService_RemoveImage_FullMethodName, class: byImage, recording: asOperation, undoes: true},

	{full: runtimeapi.RuntimeService_Version_FullMethodName, class: nodeWide},
	{full: runtimeapi.RuntimeService_Status_FullMethodName, class: nodeWide},
	{full: runtimeapi.RuntimeService_RuntimeConfig_FullMethodName, class: nodeWide},
	{full: runtimeapi.RuntimeService_UpdateRuntimeConfig_FullMethodName, class: nodeWide, recording: behind},
})

func index(list []method) map[string]*method {
	byName := make(map[string]*method, len(list))
	for i := range list {
		m := &list[i]
		m.name = m.full[strings.LastIndexByte(m.full, '/')+1:]
		byName[m.full] = m
	}
	return byName
}
