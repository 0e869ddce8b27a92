// Package docker delivers to a Docker engine: an environment's images as services
// of a Compose project, or of a Swarm stack. It runs the programs docker and
// docker-compose, as people do, with the user's own file and an override that pins
// each image by digest and hands over the environment's variables.
//
// It refuses tags: what the engine is told to run is REPOSITORY@DIGEST, and it
// pulls that itself. It refuses to build, and to change the user's file. It keeps no
// value of a secret: values reach the programs in their environment, never in
// arguments or files, and the engine in the configuration of the containers.
package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"slipway/internal/secret"
)

// Options of every delivery to an engine.
type Options struct {
	Dir     string          // where the files of a delivery are put, by environment; made when missing
	Secrets secret.Resolver // finds values when they are delivered
}

// engine is one Docker engine, as the programs reach it.
type engine struct {
	host   string   // unix://, ssh:// or tcp://; empty: what docker's own settings say
	dir    string   // the working directory of programs; empty: any
	values []string // NAME=VALUE for the programs' environment: they may be secret
}

// stopWait is how long a program may take to end after it was interrupted.
const stopWait = 5 * time.Second

// run gives what a program prints. What it says when it fails is in the error,
// without the values that it was given.
func (e engine) run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = e.dir
	for _, kv := range cmd.Environ() {
		// What the caller's shell says about another project or engine is no part of this one.
		if strings.HasPrefix(kv, "COMPOSE_") || e.host != "" && (strings.HasPrefix(kv, "DOCKER_HOST=") || strings.HasPrefix(kv, "DOCKER_CONTEXT=")) {
			continue
		}
		cmd.Env = append(cmd.Env, kv)
	}
	if e.host != "" {
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+e.host)
	}
	cmd.Env = append(cmd.Env, e.values...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopWait
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w; install docker's command line and Compose (Debian: docker.io, docker-compose) where slipway delivers from", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(3, len(argv))], " "), err, e.mask(lastOf(said.String())))
	}
	return out.Bytes(), nil
}

// lastOf is the end of what a program said, on one line.
func lastOf(text string) string {
	const enough = 600
	text = strings.Join(strings.Fields(text), " ")
	if cut := len(text) - enough; cut > 0 {
		text = "…" + strings.ToValidUTF8(text[cut:], "")
	}
	return text
}

// mask takes out what may be secret.
func (e engine) mask(text string) string {
	for _, kv := range e.values {
		if _, value, _ := strings.Cut(kv, "="); len(value) > 3 {
			text = strings.ReplaceAll(text, strings.Join(strings.Fields(value), " "), "***")
		}
	}
	return text
}

// docker runs the docker program.
func (e engine) docker(ctx context.Context, args ...string) ([]byte, error) {
	return e.run(ctx, append([]string{"docker"}, args...)...)
}

// reach says why the engine does not answer.
func (e engine) reach(ctx context.Context) error {
	if _, err := e.docker(ctx, "version", "--format", "{{.Server.Version}}"); err != nil {
		return fmt.Errorf("the Docker engine does not answer: %w; start it, or write its address as host", err)
	}
	return nil
}

// lines are the words that a program prints, one a line.
func lines(out []byte) []string { return strings.Fields(string(out)) }
