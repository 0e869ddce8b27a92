package dockerfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Step is one step of a build, with what is needed to tell later whether it
// would run again and why. It is stored as JSON.
type Step struct {
	Name string `json:"name"` // as BuildKit's progress calls it: "[2/4] COPY a b"
	// Key changes exactly when BuildKit's cache key does.
	Key digest.Digest `json:"key"`
	// Loose leaves out what is taken from other stages and images by content;
	// empty when it equals Key. A recorded Loose with an unrecorded Key means
	// that only building tells.
	Loose   digest.Digest     `json:"loose,omitempty"`
	Line    int               `json:"line,omitempty"`    // 1-based, of the Dockerfile
	Text    string            `json:"text,omitempty"`    // short hash of those lines
	Base    string            `json:"base,omitempty"`    // of a FROM: name@digest
	Sources []Source          `json:"sources,omitempty"` // files of local directories it takes
	Env     map[string]string `json:"env,omitempty"`     // of a RUN: "argument X" or "variable X" → short hash of its value
	Unknown string            `json:"unknown,omitempty"` // why Key may not be what a build would come to
	Always  string            `json:"always,omitempty"`  // why it runs each time, cached or not
}

// Final is the image that comes of the steps.
type Final struct {
	Key     digest.Digest `json:"key"` // of the last layer and the image configuration
	Unknown string        `json:"unknown,omitempty"`
}

// Steps lists the steps that a build would go through, without building. Two
// calls with equal keys mean that BuildKit would reuse the first build's result,
// as long as it has not been collected. A fault of the Dockerfile or the
// directory that would fail the build is a *SyntaxError. Nothing is written.
func Steps(ctx context.Context, r Request) ([]Step, Final, error) {
	rec := newRecorder(&r)
	dir, err := contextDir(&r)
	if err != nil {
		return nil, Final{}, err
	}
	rec.dirs["context"], rec.dirs["dockerfile"] = dir, dir
	text, file, err := readDockerfile(dir, &r)
	if err != nil {
		return nil, Final{}, err
	}
	refs, err := file.References(r.Build.Args, r.Build.Target, r.Platform)
	if err != nil {
		return nil, Final{}, err
	}
	if err := rec.addContexts(ctx, &r, refs); err != nil {
		return nil, Final{}, err
	}
	def, config, err := rec.convert(ctx)
	if err != nil {
		return nil, Final{}, frontendError(ctx, r.dockerfile(), err)
	}
	if len(def.Def) == 0 {
		// FROM scratch and nothing more.
		return nil, Final{Key: hash("image", config)}, nil
	}
	return rec.list(ctx, &r, def, config, lister{file: file, lines: bytes.Split(text, []byte("\n"))})
}

// list computes the keys of what the frontend asked for.
func (c *recorder) list(ctx context.Context, r *Request, def *pb.Definition, config string, l lister) ([]Step, Final, error) {
	g, err := decode(def)
	if err != nil {
		return nil, Final{}, err
	}
	k := &keyer{rec: c, file: r.dockerfile(), digests: r.Digests, trees: map[*node]*tree{}, done: map[*node]*keys{}}
	defer k.close()
	if err := k.compute(ctx, g); err != nil {
		return nil, Final{}, err
	}
	var steps []Step
	for _, n := range g.nodes {
		if shown(n) {
			steps = append(steps, l.step(n, k.done[n]))
		}
	}
	head := k.done[g.head.node]
	return steps, Final{Key: hash("image", head.key.String(), config), Unknown: strings.Join(head.unsure, "; ")}, nil
}

// shown is whether a node is a step to a person. What BuildKit does for itself
// shows in the steps that use it, and so does the copying half of a COPY --link.
func shown(n *node) bool {
	name := n.Name()
	return name != "" && !strings.HasPrefix(name, "[internal]") && !isLocal(n) && !n.meta.GetProgressGroup().GetWeak()
}

// lister turns nodes into steps.
type lister struct {
	file  *File
	lines [][]byte // of the Dockerfile
}

func (l *lister) step(n *node, k *keys) Step {
	s := Step{
		Name: n.Name(), Key: k.key, Line: n.lines.first, Sources: k.sources,
		Unknown: strings.Join(k.unsure, "; "), Always: k.always,
	}
	if k.loose != k.key {
		s.Loose = k.loose
	}
	if group := n.meta.GetProgressGroup(); group != nil {
		s.Name = group.Name
	}
	if n.lines.first > 0 && n.lines.last <= len(l.lines) {
		s.Text = shortHash(string(bytes.Join(l.lines[n.lines.first-1:n.lines.last], []byte("\n"))))
	}
	if src := n.op.GetSource(); src != nil {
		_, s.Base, _ = strings.Cut(src.Identifier, "://")
	}
	if exec := n.op.GetExec(); exec != nil {
		s.Env = map[string]string{}
		for _, kv := range exec.Meta.Env {
			name, value, _ := strings.Cut(kv, "=")
			if l.file.declares(name) {
				name = "argument " + name
			} else {
				name = "variable " + name
			}
			s.Env[name] = shortHash(value)
		}
	}
	return s
}

// declares is whether any ARG line of the file names it.
func (f *File) declares(name string) bool {
	for _, s := range f.stages {
		for _, cmd := range s.Commands {
			if a, ok := cmd.(*instructions.ArgCommand); ok {
				for _, kp := range a.Args {
					if kp.Key == name {
						return true
					}
				}
			}
		}
	}
	return false
}

// frontendError finds the place the frontend names.
func frontendError(ctx context.Context, file string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	var se *SyntaxError
	if errors.As(err, &se) {
		return se
	}
	out := syntaxError(file, err)
	for _, src := range errdefs.Sources(err) {
		for _, r := range src.Ranges {
			if out.Line == 0 {
				out.Line = int(r.GetStart().GetLine())
			}
		}
	}
	return out
}
