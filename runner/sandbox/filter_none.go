//go:build !seccomp

package sandbox

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// compile refuses: a sandbox without a filter is none.
func compile(*specs.LinuxSeccomp) ([]byte, error) {
	return nil, errors.New("this slipway-sandbox was built without seccomp; run `make build`, which builds it with")
}
