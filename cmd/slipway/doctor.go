//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"slipway/internal/doctor"
	"slipway/internal/helpers"
	"slipway/internal/volume"
)

func doctorCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run slipway, and say how to mend what is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			finder, err := g.finder()
			if err != nil {
				return err
			}
			if finder.Root, err = os.MkdirTemp("", "slipway-doctor"); err != nil { // unpack nothing under the root
				return fmt.Errorf("unpack the helpers to look at them: %w", err)
			}
			defer func() { err = errors.Join(err, os.RemoveAll(finder.Root)) }()
			path := func(name string) string {
				p, err := finder.Find(name)
				if err != nil {
					return "" // a finding of its own
				}
				return p
			}
			git, _ := exec.LookPath("git") // empty: a finding of its own
			found := doctor.Check(cmd.Context(), doctor.Input{
				Root: g.root, UID: os.Geteuid(), Proc: "/proc", Sys: "/sys", Git: git,
				Runc: path(helpers.Runc), Sandbox: path(helpers.Sandbox), Agent: path(helpers.Agent),
			})
			found = append(found, g.volumeFinding(cmd.Context()))
			if g.json {
				err = printJSON(os.Stdout, found)
			} else {
				painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}.findings(found)
			}
			if err == nil && doctor.Worst(found) == doctor.Fail {
				err = exitError(exitFailed)
			}
			return err
		},
	}
}

// volumeFinding says how copies of volumes are made here.
func (g *globals) volumeFinding(ctx context.Context) doctor.Finding {
	backend, why, err := volume.Probe(ctx, g.root)
	how := map[volume.Backend]string{
		volume.Btrfs: "a copy is a btrfs snapshot", volume.BtrfsLoop: "a copy is a btrfs snapshot, in an image file of slipway's own",
		volume.Reflink: "a copy shares blocks with its seed", volume.XFSLoop: "a copy shares blocks with its seed, on XFS in an image file of slipway's own",
		volume.PlainCopy: "every byte of a volume is copied for every test, which is the last resort",
	}
	f := doctor.Finding{Name: "volumes", State: doctor.OK, Detail: fmt.Sprintf("%s: %s; %s", backend, how[backend], why)}
	switch {
	case err != nil:
		f.State, f.Detail, f.Fix = doctor.Warn, err.Error(), "named volumes cannot be used until this is mended"
	case backend == volume.PlainCopy:
		f.State, f.Fix = doctor.Warn, "give it a file system that makes snapshots (loop devices and btrfs-progs), so that copies take milliseconds"
	}
	return f
}

func (p painter) findings(found []doctor.Finding) {
	colors := map[doctor.State]string{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}
	for _, f := range found {
		fmt.Fprintf(p.w, "%s  %s: %s\n", p.paint(colors[f.State], fmt.Sprintf("%-4s", f.State)), f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(p.w, "      %s\n", f.Fix)
		}
	}
}
