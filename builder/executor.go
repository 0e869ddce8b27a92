package builder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/executor/resources"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/executor/runcexecutor"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
)

// stepExecutor runs every build step in a user namespace. BuildKit's own way to
// do that remaps what lies on disk and breaks pulled layers; this one changes
// nothing on disk and shows each step its layers through idmapped mounts.
type stepExecutor struct {
	executor.Executor
	ids *idmap
}

func newStepExecutor(o Options, nets map[pb.NetMode]network.Provider, monitor *resources.Monitor) (*stepExecutor, error) {
	runc, err := runcScript(o)
	if err != nil {
		return nil, err
	}
	run, err := runcexecutor.New(runcexecutor.Opt{
		Root:              bundleDir(o.Root),
		CommandCandidates: []string{runc},
		ProcessMode:       oci.ProcessSandbox,
		IdentityMapping:   stepIDs(),
		// Each step brings its own resolv.conf; the host's is never shown.
		DNS:                 &oci.DNSConfig{},
		DefaultCgroupParent: o.Cgroup,
		ResourceMonitor:     monitor,
	}, nets)
	if err != nil {
		return nil, err
	}
	return &stepExecutor{Executor: run, ids: newIDMap(o.Root)}, nil
}

// runcScript writes the command BuildKit starts as runc. runc keeps the state
// of running containers in /run/runc unless told otherwise on its command line,
// and BuildKit cannot be asked to tell it.
//
// With cgroup version 1 nobody looks at a step's cgroup after its end, so runc
// may remove the container as it ends instead of being started once more for that.
func runcScript(o Options) (string, error) {
	if _, err := os.Stat(o.Runc); err != nil {
		return "", fmt.Errorf("the runtime for build steps: %w; run make build, or name a runc binary", err)
	}
	state := filepath.Join(stateDir(o.Root), "state")
	script := "#!/bin/sh\n"
	if !cgroupsUnified() {
		script += "for a; do shift; [ \"$a\" = --keep ] || set -- \"$@\" \"$a\"; last=$a; done\n" +
			"case \" $* \" in *\" delete \"*) [ -d " + quote(state) + "/\"$last\" ] || exit 0 ;; esac\n"
	}
	script += "exec " + quote(o.Runc) + " --root " + quote(state) + " \"$@\"\n"
	path := filepath.Join(stateDir(o.Root), "runc")
	if old, err := os.ReadFile(path); err == nil && string(old) == script {
		return path, nil
	}
	// A script that is being run cannot be written over; a rename can replace it.
	if err := os.WriteFile(path+".new", []byte(script), 0o700); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Run runs one step of a Dockerfile.
func (x *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if err := x.ids.open(); err != nil {
		return nil, fmt.Errorf("prepare the user namespace of build steps: %w", err)
	}
	ctx, shape := withShape(ctx)
	root.Src = shapedMountable{x.ids.shift(root.Src), shape}
	shifted := make([]executor.Mount, len(mounts))
	for i, m := range mounts {
		m.Src = x.ids.shift(m.Src)
		shifted[i] = m
	}
	p.Meta.Env = withEpoch(p.Meta.Env)
	return x.Executor.Run(ctx, id, root, shifted, p, started)
}

// Close removes the shared mount of the steps.
func (x *stepExecutor) Close() error { return x.ids.close() }

// withEpoch tells tools that write times into files (Python's byte code, ar,
// javadoc) the time every file of the image will carry, so that what they wrote
// stays valid there. See https://reproducible-builds.org/specs/source-date-epoch/.
func withEpoch(env []string) []string {
	for _, kv := range env {
		if strings.HasPrefix(kv, epochArg+"=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], epochArg+"="+strconv.FormatInt(epoch.Unix(), 10))
}
