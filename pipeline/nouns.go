// Package pipeline holds slipway's nouns and the pure logic on them: the parsed
// .ci.yml, its expansion to a Plan, and the results of running one. It does no
// I/O of any kind: no files, no clock, no environment, no network.
package pipeline

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one exact build output. It has no tag field: a tag can move
// between the test and the promotion, a digest cannot.
type Image struct {
	Repository string             // "registry.example/team/app", no tag; a bare pipeline image name for a local build
	Descriptor ocispec.Descriptor // manifest or index
}

// EventKind says what caused a run.
type EventKind string

// The kinds of event a `when` can name.
const (
	Push        EventKind = "push"
	PullRequest EventKind = "pull_request"
	Tag         EventKind = "tag"
)

// Event is what asked for a run: a webhook, or a person at a shell.
type Event struct {
	Kind    EventKind
	Repo    string   // clone URL or directory
	Ref     string   // "refs/heads/main", "refs/tags/v1", "refs/pull/7/head"; empty when unknown
	Base    string   // target branch of a pull request, without refs/heads/
	Commit  string   // hex object id; empty outside git
	Dirty   bool     // the tree differs from Commit
	Trusted bool     // false for a fork's pull request
	Changed []string // slash-separated paths that differ from the event's base; nil when unknown
}

// Build says how one image is built. Every path is relative to the pipeline file's directory.
type Build struct {
	Context            string            // directory, slash-separated, inside the repository
	Dockerfile         string            // relative to Context; "Dockerfile" by default
	Target             string            // stage; empty is the last
	Args               map[string]string // build arguments
	Labels             map[string]string
	AdditionalContexts map[string]string // name → "image:NAME", directory, or "docker-image://REF"
	Platforms          []string          // "linux/amd64"; empty is the machine's own
	Secrets            []string          // names looked up in the secrets given to the run
	SSH                []string          // "default" or "id=path"
	NoCache            bool
}

// Network is how far a test's sandbox reaches.
type Network string

// The reach of a sandbox; the zero value means NetworkServices.
const (
	NetworkNone     Network = "none"     // loopback only
	NetworkServices Network = "services" // the test's own services (the default)
	NetworkInternet Network = "internet" // services, and out; never the host
)

// Resources are the limits of one sandbox. Zero fields take the runner's defaults.
type Resources struct {
	CPUs   float64 // cores
	Memory int64   // bytes, swap included
	Pids   int64
	Disk   int64 // bytes the writable layer may hold
}

// Volume is one mount of a test or service, in Compose's short form.
type Volume struct {
	Source   string // "./dir" (bind, relative to the pipeline file) or a named volume
	Target   string // absolute path in the sandbox
	ReadOnly bool
}

// Test is one command run inside the exact image.
type Test struct {
	Name        string
	Command     []string          // argv; the string form of .ci.yml becomes ["/bin/sh", "-c", s]
	Entrypoint  []string          // nil: the command runs as it is, without the image's entrypoint
	Environment map[string]string // over the image's own
	Network     Network
	Volumes     []Volume
	Secrets     []string
	Services    []string
	User        string // over the image's own
	WorkingDir  string // over the image's own
	Timeout     time.Duration
	Retry       int
	Resources   Resources
	JUnit       []string // paths under /out, globs allowed
	NoCache     bool     // `cache: false`: never reuse a result
}

// Kind of a task.
type Kind string

// The kinds of task in a Plan.
const (
	BuildTask Kind = "build"
	TestTask  Kind = "test"
)

// Task is one node of a Plan.
type Task struct {
	ID     string // "api", "api/unit", with a matrix "api[python=3.12]", "api[python=3.12]/unit"; unique in the plan
	Kind   Kind
	Image  string            // name under `images`
	Matrix map[string]string // nil without a matrix
	Needs  []int             // indexes of earlier tasks only: a cycle cannot be written down
	Build  *Build            // of a BuildTask, interpolated
	Test   *Test             // of a TestTask, interpolated
	Skip   string            // why the event does not run it ("paths: nothing under api/ changed"); empty: it runs
}

// Plan is a pipeline expanded for one event, topologically ordered.
type Plan struct {
	Tasks        []Task
	Services     map[string]Service // those the tasks use, interpolated
	Volumes      map[string]VolumeSeed
	Environments []string      // paths of environment files, as written
	Digest       digest.Digest // of the canonical JSON of everything above
}

// State of a task or run. A failed test is a state, not an error.
type State string

// Legal ends of a task. Error means slipway itself failed: only that is retried by itself.
const (
	Passed   State = "passed"
	Failed   State = "failed"
	Skipped  State = "skipped"
	Canceled State = "canceled"
	Error    State = "error"
)

// Result is what one attempt at a test came to. It is decided by the agent's
// completion record and the cgroup's counters, never by the absence of an error.
type Result struct {
	State      State
	ExitCode   int    // of the command; 128+n when signal n ended it
	Reason     string // a sentence for the user when State is not Passed
	OOM        bool   // the kernel killed inside the memory limit
	TimedOut   bool
	DiskFull   bool          // the writable layer's limit was reached
	Start      time.Duration // from ready-to-schedule to the command's first instruction
	Duration   time.Duration // from the command's first instruction to its end
	PeakMemory int64         // bytes; 0 when the kernel does not say
	CPU        time.Duration // user and system of the whole sandbox
	OutputSize int64         // bytes of output the agent counted and the runner received
}
