package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/spf13/pflag"

	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/store"
	"slipway/internal/upload"
	"slipway/pipeline"
)

// runWhere runs what is in a directory on the server that is asked for, on the
// one that holds the root, or else here. given are the flags of the command line.
func (g *globals) runWhere(ctx context.Context, dir string, f runFlags, given *pflag.FlagSet) error {
	if f.dryRun && !given.Changed("server") && hasRoot() == nil { // it is of here, whoever holds the root
		return g.runPipeline(ctx, dir, f)
	}
	c, err := f.serverFlags.client(g)
	if err == nil && c != nil {
		err = elsewhere(given, c)
	}
	switch {
	case err != nil:
		return err
	case f.keepFor <= 0:
		return usagef("--keep-for %s: give a time such as 30m or 2h", f.keepFor)
	case c == nil:
		return g.runPipeline(ctx, dir, f)
	}
	return g.runRemotely(ctx, c, dir, f)
}

// runRemotely runs what is in a directory on a server: the files that a run here
// would read are uploaded, and what the run says comes back as it is said.
func (g *globals) runRemotely(ctx context.Context, c *client, dir string, f runFlags) error {
	abs, plan, ev, tree, err := f.plan(ctx, dir)
	if err != nil {
		return err
	}
	if ev, err = watch(ctx, filepath.Join(abs, pipelineFile), tree).event(ev); err != nil {
		return err
	}
	also := map[bool][]string{true: plan.Environments}[f.dryRun] // a run reads none
	sent, err := c.upload(ctx, abs, plan, tree, also)
	if err != nil {
		return err
	}
	begin := server.Begin{Upload: sent.Upload, Event: ev, Only: f.only, RerunTests: f.rerunTests, NoCache: f.noCache}
	if c.root != "" {
		begin.KeepSeconds = int64(f.keepFailed.stay(f.keepFor).Seconds())
	}
	if f.dryRun {
		var out server.Foretold
		if err := c.ask(ctx, http.MethodPost, "/api/v1/forecasts", begin, &out); err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, out.Forecast)
		}
		fmt.Print(out.Text)
		return nil
	}
	var run ledger.Run
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // whoever stops now must know the run that is to be stopped
	defer cancel()
	if err := c.ask(asking, http.MethodPost, "/api/v1/runs", begin, &run); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "slipway: run %s on %s: %.1f MB uploaded\n", run.ID, c.where(), float64(sent.Bytes)/1e6)
	if run, err = g.accompany(ctx, c, run.ID, f.progress); err != nil {
		return err
	}
	if run.Plan != "" && run.Plan != plan.Digest.String() {
		fmt.Fprintf(os.Stderr, "slipway: the server's slipway made another plan of it (%.19s, here %.19s): update the older one\n", run.Plan, plan.Digest)
	}
	return g.concludeRemote(run)
}

// localOnly are the flags of `run pipeline` that a run on a server cannot heed, and
// what to do instead.
var localOnly = map[string]string{
	"builder": "the server has its own", "builder-certs": "the server has its own",
	"parallel": "`slipway serve --parallel` says it there", "keep-failed": "`slipway serve --keep-failed` says it there", "keep-for": "`slipway serve --keep-failed` says it there",
	"secrets": "`slipway secrets set NAME --repo uploads` gives it to uploads there",
	"signer":  "an upload is not signed; push the commit", "signer-key": "an upload is not signed; push the commit",
}

// elsewhere refuses flags that a run on a server cannot heed. What the
// environment or the config file says is for runs here, and no mistake.
func elsewhere(given *pflag.FlagSet, c *client) (err error) {
	given.Visit(func(f *pflag.Flag) {
		instead, ok := localOnly[f.Name]
		switch {
		case !ok, c.root != "" && strings.HasPrefix(f.Name, "keep-"): // who has the root may have tests kept in it
		case c.root != "":
			err = usagef("`slipway serve` holds %s, and its runs take no --%s: %s; or run it on a root of its own, with --root DIR or SLIPWAY_ROOT", c.root, f.Name, instead)
		default:
			err = usagef("--%s is for a run on this machine; %s", f.Name, instead)
		}
	})
	return err
}

// accompany shows what a run says until its end. Who stops the command stops the run.
func (g *globals) accompany(ctx context.Context, c *client, id, progress string) (ledger.Run, error) {
	out := io.Writer(os.Stderr)
	if progress == "quiet" {
		out = io.Discard
	}
	unasked, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(nil)
	var refused error
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		short, cancel := context.WithTimeout(unasked, 30*time.Second)
		defer cancel()
		var r ledger.Run
		refused = c.ask(short, http.MethodPost, "/api/v1/runs/"+url.PathEscape(id)+"/cancel", struct{}{}, &r)
		var no *answered
		if refused != nil && !errors.As(refused, &no) { // nobody is there to end it, and nobody to follow
			leave(fmt.Errorf("run %s was not ended: %w; `slipway cancel %s` ends it", id, refused, id))
		}
	})
	err := c.logs(unasked, id, true, out)
	if !stop() {
		<-told
		err = errors.Join(err, refused)
	}
	if gone := context.Cause(unasked); gone != nil {
		report(os.Stderr, gone)
		return ledger.Run{}, exitError(exitCanceled)
	}
	var exit exitError
	if err != nil && !errors.As(err, &exit) {
		return ledger.Run{}, err
	}
	return c.run(unasked, id)
}

// concludeRemote prints what came of a run of a server as conclude does.
func (g *globals) concludeRemote(run ledger.Run) error {
	record := store.Run{State: pipeline.State(run.State), Reason: run.Reason, Commit: run.Commit, Ref: run.Ref, Plan: run.Plan}
	if len(run.Result) > 0 {
		if err := json.Unmarshal(run.Result, &record); err != nil {
			return fmt.Errorf("read the record of run %s: %w", run.ID, err)
		}
	}
	record.ID = run.ID // its own is one that only the server's root knows
	if len(record.Images) == 0 && record.Reason != "" && !g.json {
		fmt.Println(record.Reason)
	}
	return g.conclude(record, "slipway logs "+run.ID)
}

// upload sends what a run of the plan reads of a directory, which may be in a work tree,
// and some files besides.
func (c *client) upload(ctx context.Context, dir string, plan pipeline.Plan, work *git.Tree, also []string) (sent server.Uploaded, err error) {
	parts, err := partsOf(dir, plan)
	if err != nil {
		return sent, err
	}
	for _, name := range also {
		parts = append(parts, upload.Part{Path: name})
	}
	tree, err := upload.Open(ctx, dir, parts)
	if err != nil {
		return sent, usageError{err}
	}
	defer tree.Close()
	if work != nil && runtime.GOOS == "windows" {
		if tree.Tracked, err = work.Tracked(dir); err != nil {
			return sent, err
		}
	}
	out, in := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tree.Pack(ctx, in)
		packed <- err
		_ = in.CloseWithError(err) // never fails
	}()
	resp, err := c.send(ctx, http.MethodPost, fmt.Sprintf("/api/v1/uploads?bytes=%d", tree.Bytes), out, http.Header{"Content-Type": {uploadType}, "Expect": {"100-continue"}})
	_ = out.Close() // what was not taken need not be packed
	if failed := <-packed; failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		return sent, errors.Join(failed, context.Cause(ctx))
	}
	if err != nil {
		return sent, err
	}
	defer resp.Body.Close()
	return sent, json.NewDecoder(resp.Body).Decode(&sent)
}

// uploadType is a tar archive, compressed by zstd (RFC 8878).
const uploadType = "application/zstd"

// partsOf are the files that a run of the plan reads, here as there: the
// pipeline's, what its builds may see, and what its tests and services mount.
func partsOf(dir string, plan pipeline.Plan) ([]upload.Part, error) {
	parts := []upload.Part{{Path: pipelineFile}}
	for _, task := range plan.Tasks {
		if task.Skip != "" {
			continue
		}
		if task.Kind == pipeline.TestTask {
			for _, name := range shown(plan, task) {
				parts = append(parts, upload.Part{Path: name})
			}
			continue
		}
		for i, at := range contextsOf(*task.Build) {
			files := []string{".dockerignore"} // of the others that alone, if they have one
			if i == 0 {
				files = buildFiles(*task.Build)
			}
			part := upload.Part{Path: at}
			for _, name := range files {
				parts = append(parts, upload.Part{Path: path.Join(at, name)})
			}
			var err error
			if part.Ignore, err = ignoredBy(dir, at, files); err != nil {
				return nil, err
			}
			part.Ignore = append(part.Ignore, ".git") // it is in no build context, whatever the file says
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// ignoredBy reads the first ignore file that is there.
func ignoredBy(dir, at string, files []string) ([]string, error) {
	for _, name := range files {
		if !strings.HasSuffix(name, ".dockerignore") {
			continue
		}
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(at), filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, usagef("%s: %w", path.Join(at, name), err)
		}
		return patterns, nil
	}
	return nil, nil
}
