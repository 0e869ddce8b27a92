//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/supervise"
)

func psCommand(g *globals) *cobra.Command {
	var f projectFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "ps [DIR]",
		Short: "Show the containers that run for DIR (default .) or an environment",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			projects, err := supervise.Dial(g.liveDir()).Status(cmd.Context())
			if errors.Is(err, supervise.ErrNotRunning) {
				projects, err = []supervise.ProjectStatus{}, nil
			}
			if err != nil {
				return err
			}
			if !all {
				name, _, err := f.project(args)
				if err != nil {
					return err
				}
				projects = slices.DeleteFunc(projects, func(p supervise.ProjectStatus) bool { return p.Project != name })
			}
			if g.json {
				return printJSON(os.Stdout, projects)
			}
			return printProjects(os.Stdout, projects)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "of every project on this root")
	return cmd
}

func printProjects(w io.Writer, projects []supervise.ProjectStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROJECT\tCONTAINER\tSTATE\tSINCE\tRESTARTS\tDIGEST\tPORTS")
	var problems []string
	for _, p := range projects {
		for _, c := range p.Containers {
			var ports []string
			for _, port := range c.Ports {
				ports = append(ports, fmt.Sprintf("%s→%d", port.Host, port.Container))
			}
			since := ""
			if !c.Since.IsZero() {
				since = short(time.Since(c.Since).Round(time.Second))
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%.19s\t%s\n", p.Project, c.Name, c.State, since, c.Restarts, c.Digest, strings.Join(ports, " "))
			if c.Reason != "" {
				problems = append(problems, c.Name+": "+c.Reason)
			}
		}
		if p.Problem != "" {
			problems = append(problems, p.Project+": the last change failed: "+p.Problem)
		}
	}
	err := t.Flush()
	for _, problem := range problems {
		fmt.Fprintln(w, problem)
	}
	return err
}

func downCommand(g *globals) *cobra.Command {
	var f projectFlags
	var volumes bool
	cmd := &cobra.Command{
		Use:   "down [DIR]",
		Short: "Stop and remove the containers that `slipway up` started for DIR (default .)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, _, err := f.project(args)
			if err != nil {
				return err
			}
			c := supervise.Dial(g.liveDir())
			err = c.Remove(cmd.Context(), name, volumes)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				fmt.Fprintf(os.Stderr, "slipway: nothing of %s runs\n", name)
				return nil
			case errors.Is(err, supervise.ErrNotRunning):
				if _, serr := supervise.Saved(g.liveDir(), name); errors.Is(serr, fs.ErrNotExist) {
					fmt.Fprintf(os.Stderr, "slipway: nothing of %s runs\n", name)
					return nil
				}
				if c, err = g.supervisor(cmd.Context()); err == nil { // it would be started again at the next start
					err = c.Remove(cmd.Context(), name, volumes)
				}
			}
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove its volumes too")
	return cmd
}

// followLogs prints what the containers of a project say: of one it is printed
// as it is, of several each line begins with the container's name.
func (g *globals) followLogs(ctx context.Context, project string, only []string, tail int, follow bool) error {
	c := supervise.Dial(g.liveDir())
	projects, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range projects {
		if p.Project != project {
			continue
		}
		for _, container := range p.Containers {
			if len(only) == 0 || slices.Contains(only, container.Name) {
				names = append(names, container.Name)
			}
		}
	}
	if len(names) == 0 {
		return usagef("no such container of %s runs; `slipway ps --all` shows what does", project)
	}
	out := &lines{w: os.Stdout}
	errs := make([]error, len(names))
	var reading sync.WaitGroup
	for i, name := range names {
		var to io.Writer = os.Stdout
		if len(names) > 1 {
			to = &named{lines: out, name: name}
		}
		read := func() { errs[i] = c.Logs(ctx, project, name, tail, follow, to) }
		if follow {
			reading.Go(read)
		} else {
			read()
		}
	}
	reading.Wait()
	return errors.Join(errs...)
}

// lines writes whole lines, one writer at a time.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

// named puts a name before each line.
type named struct {
	*lines
	name string
	rest []byte
}

func (n *named) Write(p []byte) (int, error) {
	n.rest = append(n.rest, p...)
	for {
		i := slices.Index(n.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		n.mu.Lock()
		_, err := fmt.Fprintf(n.w, "%s | %s", n.name, n.rest[:i+1])
		n.mu.Unlock()
		if err != nil {
			return 0, err
		}
		n.rest = n.rest[i+1:]
	}
}
