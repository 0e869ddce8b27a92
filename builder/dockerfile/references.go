package dockerfile

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Reference is an image from outside the Dockerfile that a build of it needs.
type Reference struct {
	Name    string // normalised, with a tag or digest: "docker.io/library/debian:12"
	Context string // the name BuildKit looks it up under among named contexts: "debian:12", "debian" for latest
	Line    int    // 1-based, of the first use
}

// References lists the images the stages that target needs stand on, by FROM,
// COPY --from and RUN --mount from, sorted by name. target is a stage's name;
// empty is the last stage. platform fills TARGETPLATFORM and its like; empty is
// the machine's own. Images that ONBUILD lines of a base bring in are not seen.
func (f *File) References(args map[string]string, target, platform string) ([]Reference, error) {
	r := &resolver{file: f, lex: shell.NewLex(f.escape), seen: map[int]bool{}, found: map[string]Reference{}}
	var err error
	if r.env, err = f.globalArgs(r.lex, args, target, platform); err != nil {
		return nil, err
	}
	last, err := f.targetStage(target)
	if err != nil {
		return nil, err
	}
	if err := r.stage(last); err != nil {
		return nil, err
	}
	out := make([]Reference, 0, len(r.found))
	for _, ref := range r.found {
		out = append(out, ref)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// targetStage is the index of the named stage. Of several stages with one
// name BuildKit takes the last.
func (f *File) targetStage(target string) (int, error) {
	if target == "" {
		return len(f.stages) - 1, nil
	}
	if i := f.stageBefore(target, len(f.stages)); i >= 0 {
		return i, nil
	}
	var names []string
	for _, s := range f.stages {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	hint := "it names no stage; leave target away or write FROM … AS " + target
	if len(names) > 0 {
		hint = "its stages are " + strings.Join(names, ", ")
	}
	return 0, &SyntaxError{File: f.name, Message: fmt.Sprintf("there is no stage %q: %s", target, hint)}
}

// stageBefore finds the latest stage called name before index end, or -1.
func (f *File) stageBefore(name string, end int) int {
	for i := end - 1; i >= 0; i-- {
		if f.stages[i].Name != "" && strings.EqualFold(f.stages[i].Name, name) {
			return i
		}
	}
	return -1
}

// globalArgs is the environment FROM lines are expanded in.
func (f *File) globalArgs(lex *shell.Lex, args map[string]string, target, platform string) (shell.EnvGetter, error) {
	build, want := platforms.Normalize(platforms.DefaultSpec()), platforms.Normalize(platforms.DefaultSpec())
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w; write it like linux/amd64", platform, err)
		}
		want = platforms.Normalize(p)
	}
	if target == "" {
		target = "default"
	}
	env := &llb.EnvList{}
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platforms.Format(want)},
		{"TARGETOS", want.OS},
		{"TARGETARCH", want.Architecture},
		{"TARGETVARIANT", want.Variant},
		{"TARGETSTAGE", target},
	} {
		if v, ok := args[kv[0]]; ok {
			kv[1] = v
		}
		env = env.AddOrReplace(kv[0], kv[1])
	}
	for _, cmd := range f.args {
		for _, kp := range cmd.Args {
			value := kp.Value
			if v, ok := args[kp.Key]; ok {
				value = &v
			} else if value != nil {
				word, _, err := lex.ProcessWord(*value, env)
				if err != nil {
					return nil, &SyntaxError{File: f.name, Line: firstLine(cmd.Location()), Message: err.Error()}
				}
				value = &word
			}
			if value != nil {
				env = env.AddOrReplace(kp.Key, *value)
			}
		}
	}
	return env, nil
}

// resolver walks the stages a target needs.
type resolver struct {
	file  *File
	lex   *shell.Lex
	env   shell.EnvGetter
	seen  map[int]bool
	found map[string]Reference
}

func (r *resolver) stage(i int) error {
	if r.seen[i] {
		return nil
	}
	r.seen[i] = true
	s := r.file.stages[i]
	line := firstLine(s.Location)
	base, _, err := r.lex.ProcessWord(s.BaseName, r.env)
	if err != nil {
		return &SyntaxError{File: r.file.name, Line: line, Message: err.Error()}
	}
	if base == "" {
		return &SyntaxError{File: r.file.name, Line: line, Message: fmt.Sprintf("FROM %s names no image: give the argument a default or a value", s.BaseName)}
	}
	if err := r.use(base, i, line); err != nil {
		return err
	}
	for _, cmd := range s.Commands {
		if err := r.command(cmd, i); err != nil {
			return err
		}
	}
	return nil
}

func (r *resolver) command(cmd instructions.Command, stage int) error {
	line := firstLine(cmd.Location())
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			return nil
		}
		if n, err := strconv.Atoi(c.From); err == nil {
			if n < 0 || n >= len(r.file.stages) {
				return &SyntaxError{File: r.file.name, Line: line, Message: fmt.Sprintf("COPY --from=%d: there are %d stages, counted from 0", n, len(r.file.stages))}
			}
			return r.stage(n)
		}
		return r.use(c.From, len(r.file.stages), line)
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			if m.From == "" {
				continue
			}
			if err := r.use(m.From, len(r.file.stages), line); err != nil {
				return err
			}
		}
	}
	return nil
}

// use follows a name to a stage before end, or notes it as an image from outside.
func (r *resolver) use(name string, end, line int) error {
	if i := r.file.stageBefore(name, end); i >= 0 {
		return r.stage(i)
	}
	if name == "scratch" {
		return nil
	}
	ref, err := Normalize(name)
	if err != nil {
		return &SyntaxError{File: r.file.name, Line: line, Message: err.Error()}
	}
	ref.Line = line
	if old, ok := r.found[ref.Name]; !ok || line < old.Line {
		r.found[ref.Name] = ref
	}
	return nil
}

// Normalize gives an image's name both of its forms, as BuildKit would: its
// full one, and the one a named context for it has.
func Normalize(name string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return Reference{}, fmt.Errorf("%q is not an image reference: %w; write it like debian:12 or registry.example/team/app:1", name, err)
	}
	named = reference.TagNameOnly(named)
	return Reference{
		Name:    named.String(),
		Context: strings.TrimSuffix(reference.FamiliarString(named), ":latest"),
	}, nil
}
