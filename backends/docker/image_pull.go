package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PullImage implements the ImageService. It takes as long as it takes, and
// ends with its caller. sandbox_config, image.annotations and
// image.runtime_handler choose nothing here: the Engine has one store.
func (s *server) PullImage(ctx context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	ref := r.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("image.image", "is required")
	}
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, invalid("image.image", "%q is no image name: %v", ref, err)
	}
	full := reference.TagNameOnly(name).String()
	auth, err := registryAuth(r.GetAuth())
	if err != nil {
		return nil, err
	}
	progress, err := s.engine.ImagePull(ctx, full, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return nil, s.fail(err, "pull image %q", ref)
	}
	if err := watchPull(progress); err != nil {
		return nil, s.fail(err, "pull image %q", ref)
	}
	img, err := s.engine.ImageInspect(ctx, full)
	if err != nil {
		return nil, s.fail(err, "inspect image %q after its pull", ref)
	}
	return &runtimeapi.PullImageResponse{ImageRef: img.ID}, nil
}

// watchPull reads the progress of a pull to its end. The Engine has promised
// success by then: what fails later, it says in the stream.
func watchPull(progress io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, progress.Close()) }()
	messages := json.NewDecoder(progress)
	for {
		var m struct {
			ErrorDetail *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"errorDetail"`
			Error string `json:"error"`
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's progress: %w", err)
		case m.ErrorDetail != nil:
			return status.Error(codeOfHTTP(m.ErrorDetail.Code), m.ErrorDetail.Message)
		case m.Error != "":
			return status.Error(codes.Unknown, m.Error)
		}
	}
}

// codeOfHTTP is the gRPC code for an HTTP status in a progress stream.
func codeOfHTTP(code int) codes.Code {
	switch code {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// registryAuth encodes credentials for the Engine. Their values appear in no
// error.
func registryAuth(a *runtimeapi.AuthConfig) (string, error) {
	if a == nil {
		return "", nil
	}
	c := registry.AuthConfig{
		Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
	if a.Auth != "" && a.Username == "" {
		user, password, err := splitAuth(a.Auth)
		if err != nil {
			return "", err
		}
		c.Username, c.Password = user, password
	}
	encoded, err := registry.EncodeAuthConfig(c)
	if err != nil {
		return "", invalid("auth", "cannot be encoded")
	}
	return encoded, nil
}

// splitAuth takes user and password out of the form of Docker's own
// configuration: base64 of user:password, padded with zero bytes at times.
func splitAuth(auth string) (user, password string, err error) {
	plain, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return "", "", invalid("auth.auth", "is not base64")
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return "", "", invalid("auth.auth", "is not user:password")
	}
	return user, strings.Trim(password, "\x00"), nil
}
