//go:build linux && !client

package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/store"
	"slipway/runner"
)

// ours says whether a kept test is of a run of this server: its files are where
// the server writes them out.
func (v *serving) ours(k store.Kept) bool { return filepath.Dir(k.Dir) == v.workDir() }

// reapKept removes the kept tests of an earlier server: what they mount goes with its end.
func (v *serving) reapKept(ctx context.Context) error {
	all, err := v.stack.store.AllKept()
	if err != nil {
		return err
	}
	living, err := v.stack.living(ctx)
	if err != nil {
		return err
	}
	for _, k := range all {
		if f, ok := living[k.Name]; ok && v.ours(k) {
			if err := f.Thaw(ctx); err != nil {
				return err
			}
		}
	}
	return v.stack.giveBack(ctx)
}

// kept lists the kept tests of this server's runs.
func (v *serving) kept(ctx context.Context) (list []server.Kept, err error) {
	all, err := v.stack.store.AllKept()
	if err != nil {
		return nil, err
	}
	living, err := v.stack.living(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		f, ok := living[k.Name]
		if !ok || !v.ours(k) {
			continue
		}
		record, test, _ := strings.Cut(k.Name, "/")
		list = append(list, server.Kept{Record: record, Test: test, Services: f.Services, Until: f.Until.UTC().Truncate(time.Second), InUse: f.Users, Secrets: k.Secrets})
	}
	return list, nil
}

func (v *serving) frozen(ctx context.Context, k server.Kept) (runner.Frozen, error) {
	living, err := v.stack.living(ctx)
	f, ok := living[keptName(k.Record, k.Test)]
	if err == nil && !ok {
		err = &ledger.Refusal{Why: k.Test + " is not kept any more"}
	}
	return f, err
}

func (v *serving) thaw(ctx context.Context, k server.Kept) error {
	f, err := v.frozen(ctx, k)
	if err != nil {
		return err
	}
	return f.Thaw(ctx)
}

// tidy gives back what kept tests held that are gone, and removes their files.
func (v *serving) tidy(ctx context.Context) error {
	if err := v.stack.giveBack(ctx); err != nil {
		return err
	}
	v.stack.keeping.Lock()
	defer v.stack.keeping.Unlock()
	all, err := v.stack.store.AllKept()
	if err != nil {
		return err
	}
	held := map[string]bool{}
	for _, k := range all {
		held[k.Dir] = true
	}
	for dir := range v.left {
		if !held[dir] {
			err = errors.Join(err, os.RemoveAll(dir))
			delete(v.left, dir)
		}
	}
	return err
}

// clear removes the files of a run that is over, or leaves them to tidy where a
// kept test has them mounted.
func (v *serving) clear(dir string) error {
	v.stack.keeping.Lock()
	defer v.stack.keeping.Unlock()
	all, err := v.stack.store.AllKept()
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.Dir == dir {
			v.left[dir] = true
			return nil
		}
	}
	return os.RemoveAll(dir)
}

// sayKept tells in a run's log how to get into its tests that are kept.
func (v *serving) sayKept(run ledger.Run, record store.Run, log *server.Log) {
	tests := testsOf(record)
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		if until := tests[name].KeptUntil; until != nil {
			log.Say(name, "kept as it was left until "+until.UTC().Format(time.RFC3339)+": slipway shell "+run.ID+"/"+name)
		}
	}
}

// shell joins somebody to a kept test.
func (v *serving) shell(ctx context.Context, k server.Kept, q server.ShellRequest, c server.Console) (server.ShellEnd, error) {
	f, err := v.frozen(ctx, k)
	if err != nil {
		return server.ShellEnd{}, err
	}
	visit, err := f.Visit(ctx, q.Service)
	if err != nil {
		return server.ShellEnd{}, &ledger.Refusal{Why: err.Error()}
	}
	defer visit.Close()
	cmd := runner.Command{Args: q.Command, User: q.User}
	if len(cmd.Args) == 0 {
		cmd.Args = loginShell
	}
	var e runner.Exit
	if q.Term == "" {
		e, err = inPipes(ctx, visit, cmd, c)
	} else {
		e, err = inTerminal(ctx, visit, cmd, q, c)
	}
	end := server.ShellEnd{Code: e.Code}
	if e.Refused {
		end.Refused = e.Reason
	}
	return end, err
}

func inPipes(ctx context.Context, v *runner.Visit, cmd runner.Command, c server.Console) (runner.Exit, error) {
	asked, interrupt := context.WithCancel(ctx)
	defer interrupt()
	go func() {
		select {
		case <-c.Interrupt:
			interrupt()
		case <-asked.Done():
		}
	}()
	gone := context.AfterFunc(ctx, func() { _ = v.Close() }) // what runs is ended with whoever ran it
	defer gone()
	return v.Run(asked, cmd, runner.Streams{In: c.In, Out: c.Out, Err: c.Err})
}

// inTerminal joins a console to a terminal in the sandbox.
func inTerminal(ctx context.Context, v *runner.Visit, cmd runner.Command, q server.ShellRequest, c server.Console) (runner.Exit, error) {
	cmd.Env = map[string]string{"TERM": q.Term}
	t, e, err := v.Open(ctx, cmd, runner.Size(q.Size))
	if err != nil || e.Refused {
		return e, err
	}
	stop := context.AfterFunc(ctx, func() { _ = t.Close() }) // as when a window is closed
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case size := <-c.Sizes:
				_ = t.Resize(runner.Size(size)) // or it has just ended
			case <-ended:
				return
			}
		}
	}()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(c.Out, t.Master) // EIO: nobody is left in the terminal
	}()
	go func() { _, _ = io.Copy(t.Master, c.In) }() // ends with the connection
	e, err = t.Wait(context.WithoutCancel(ctx))
	_ = t.Master.SetReadDeadline(time.Now().Add(lastWords)) // what stays in the background may hold it open
	<-shown
	return e, errors.Join(err, t.Close())
}
