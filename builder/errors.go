package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/sys/unix"

	"slipway/builder/dockerfile"
)

// BuildError is the user's failure: the Dockerfile, what it stands on, or a
// command in it. Fields that do not apply are zero.
type BuildError struct {
	File       string // Dockerfile, relative to the context
	Line       int    // 1-based
	Source     string // the lines around it, numbered, the guilty ones marked ">>>"
	Step       string // "[2/5] RUN make"
	ExitCode   int    // of the command; 0 when none ran
	LastOutput []byte // of the failed step, at most 16 KiB
	Message    string // what is wrong
	Next       string // what to do about it; may be empty
}

// Error is one line: place, fault and next step.
func (e *BuildError) Error() string {
	var s strings.Builder
	if e.File != "" {
		s.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&s, ":%d", e.Line)
		}
		s.WriteString(": ")
	}
	s.WriteString(e.Message)
	if e.Next != "" {
		s.WriteString("; " + e.Next)
	}
	return s.String()
}

// explain turns BuildKit's error into a *BuildError when the fault is the user's.
func (b *Builder) explain(ctx context.Context, err error, in *inputs, news *status) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if full := diskFull(b.o.Root); full != nil {
		return fmt.Errorf("%w (%w)", full, err)
	}
	be := &BuildError{File: in.dockerfile}
	var vertex *errdefs.VertexError
	if errors.As(err, &vertex) {
		be.Step = news.names[vertex.Digest]
		be.LastOutput = bytes.Clone(news.tail(vertex.Digest))
	} else {
		be.Step = news.failed()
	}
	be.Line, be.Source = place(err, in)
	var exit *gateway.ExitError
	switch {
	case errors.As(err, &exit):
		be.ExitCode = int(exit.ExitCode)
		be.Message = fmt.Sprintf("the command ended with exit code %d", exit.ExitCode)
		if errors.Is(err, syscall.ENOMEM) {
			be.Message, be.Next = "the kernel ended the command: it had used up the memory", "give the machine more memory, or let the step use less"
		}
		in.foreignStep(be)
		return be
	case in.missingBase(be):
		be.Message = "cannot get the base image: " + rootCause(err)
		return be
	case be.Line > 0 && (in.instruction(be.Line) != "RUN" || missingSource(err)):
		be.Message = rootCause(err)
		if missingSource(err) {
			be.Next = "check the name and .dockerignore; \"..\" and symbolic links cannot lead out of the context"
		}
		return be
	}
	return fmt.Errorf("build %s: %w", in.dockerfile, err)
}

// missingSource tells whether a step wants a path that is not in its context.
// BuildKit has no type for it: contenthash's error is its own.
func missingSource(err error) bool {
	return strings.Contains(err.Error(), "failed to calculate checksum of ref") && strings.HasSuffix(err.Error(), ": not found")
}

// missingBase tells whether the failed step was the look-up of an image from
// outside, and says what to do then.
func (in *inputs) missingBase(be *BuildError) bool {
	for _, ref := range in.refs {
		found := be.Line == ref.Line && be.Step == "" || strings.Contains(be.Step, ref.Name)
		if !found || in.contexts[ref.Context] != "" {
			continue
		}
		if be.Line == 0 {
			be.Line = ref.Line
		}
		if be.Source == "" {
			be.Source = excerpt(in.source, be.Line, be.Line)
		}
		be.Next = fmt.Sprintf("check the name, the network and the credentials, or bring it in without a network: slipway images import FILE --name %s", familiar(ref))
		return true
	}
	return false
}

// foreignStep says so when the failed command was for a platform that this
// machine cannot run. BuildKit puts the platform into the name of a step only
// when there are several.
func (in *inputs) foreignStep(be *BuildError) {
	for _, p := range in.foreign {
		if len(in.foreign) == 1 || strings.Contains(be.Step, "["+p+" ") {
			be.Message += fmt.Sprintf(": this machine cannot run programs for %s", p)
			be.Next = "install qemu-user-static and binfmt-support, or build on a remote builder that has them, or compile on this platform (FROM --platform=$BUILDPLATFORM)"
			return
		}
	}
}

// instruction is the first word of a line of the Dockerfile, in capitals.
func (in *inputs) instruction(line int) string {
	lines := strings.Split(in.source, "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	word, _, _ := strings.Cut(strings.TrimSpace(lines[line-1]), " ")
	return strings.ToUpper(word)
}

func familiar(ref dockerfile.Reference) string {
	if strings.Contains(ref.Context, ":") || strings.Contains(ref.Context, "@") {
		return ref.Context
	}
	return ref.Context + ":latest"
}

// place is the Dockerfile's line BuildKit blames, with the lines around it.
func place(err error, in *inputs) (line int, source string) {
	for _, s := range errdefs.Sources(err) {
		if s.Info == nil || s.Info.Filename != in.dockerfile {
			continue
		}
		first, last := 0, 0
		for _, r := range s.Ranges {
			start, end := int(r.GetStart().GetLine()), int(r.GetEnd().GetLine())
			if first == 0 || start < first {
				first = start
			}
			last = max(last, end, start)
		}
		if first > 0 {
			return first, excerpt(in.source, first, last)
		}
	}
	return 0, ""
}

// excerpt is lines first to last of source with two around them, numbered and
// the named ones marked.
func excerpt(source string, first, last int) string {
	lines := strings.Split(strings.TrimSuffix(source, "\n"), "\n")
	if first < 1 || first > len(lines) {
		return ""
	}
	var out strings.Builder
	for n := max(1, first-2); n <= min(len(lines), last+2); n++ {
		mark := "   "
		if n >= first && n <= last {
			mark = ">>>"
		}
		fmt.Fprintf(&out, "%4d | %s %s\n", n, mark, strings.TrimSuffix(lines[n-1], "\r"))
	}
	return out.String()
}

// checksumWords are what BuildKit says before the name of a file that it did
// not find: they name its cache records and no file of the user's.
var checksumWords = regexp.MustCompile(`failed to (compute cache key|calculate checksum of ref \S+): `)

// rootCause is BuildKit's error without the words of the layers it came through.
func rootCause(err error) string {
	text := checksumWords.ReplaceAllString(err.Error(), "")
	for _, prefix := range []string{"failed to solve: ", "failed to resolve dockerfile: ", "dockerfile parse error"} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			text = strings.TrimPrefix(rest, ": ")
		}
	}
	return text
}

// spare is the free space, in bytes, below which a failed write is the likely
// cause of any failure.
const spare = 4 << 20

// diskFull is the error to show when the disk of root has no room left. What
// BuildKit says then comes through gRPC as text and has lost its cause.
func diskFull(root string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil // the build's own error says more
	}
	if st.Bavail*uint64(st.Bsize) > spare && (st.Files == 0 || st.Ffree > 64) {
		return nil
	}
	return fmt.Errorf("no space left on the disk of %s: free some, or run slipway gc: %w", root, syscall.ENOSPC)
}
