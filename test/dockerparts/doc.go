// Package dockerparts tests the parts of the Docker backend that stand on
// their own, the pod infra image, streaming and the CRI logs, on a real Docker
// Engine.
package dockerparts
