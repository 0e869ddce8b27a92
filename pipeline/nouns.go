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
	Schedule    EventKind = "schedule"
)

// Event is what asked for a run: a webhook, or a person at a shell.
type Event struct {
	Kind    EventKind `json:"kind,omitzero"`
	Repo    string    `json:"repo,omitzero"`    // clone URL or directory
	Ref     string    `json:"ref,omitzero"`     // "refs/heads/main", "refs/tags/v1", "refs/pull/7/head"; empty when unknown
	Base    string    `json:"base,omitzero"`    // target branch of a pull request, without refs/heads/
	Name    string    `json:"name,omitzero"`    // of a schedule
	Commit  string    `json:"commit,omitzero"`  // hex object id; empty outside git
	Dirty   bool      `json:"dirty,omitzero"`   // the tree differs from Commit
	Trusted bool      `json:"trusted,omitzero"` // false for a fork's pull request
	Changed []string  `json:"changed,omitzero"` // slash-separated paths that differ from the event's base; nil when unknown
}

// Build says how one image is built. Every path is relative to the pipeline file's directory.
type Build struct {
	Context            string            `json:"context,omitzero"`    // directory, slash-separated, inside the repository
	Dockerfile         string            `json:"dockerfile,omitzero"` // relative to Context; "Dockerfile" by default
	Target             string            `json:"target,omitzero"`     // stage; empty is the last
	Args               map[string]string `json:"args,omitzero"`       // build arguments
	Labels             map[string]string `json:"labels,omitzero"`
	AdditionalContexts map[string]string `json:"additional_contexts,omitzero"` // name → "image:NAME", directory, or "docker-image://REF"
	Platforms          []string          `json:"platforms,omitzero"`           // "linux/amd64"; empty is the machine's own
	Secrets            []string          `json:"secrets,omitzero"`             // names looked up in the secrets given to the run
	SSH                []string          `json:"ssh,omitzero"`                 // "default" or "id=path"
	NoCache            bool              `json:"no_cache,omitzero"`
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
	CPUs   float64 `json:"cpus,omitzero"`   // cores
	Memory int64   `json:"memory,omitzero"` // bytes, swap included
	Pids   int64   `json:"pids,omitzero"`
	Disk   int64   `json:"disk,omitzero"` // bytes the writable layer may hold
}

// Volume is one mount of a test or service, in Compose's short form.
type Volume struct {
	Source   string `json:"source,omitzero"` // "./dir" (bind, relative to the pipeline file) or a named volume
	Target   string `json:"target,omitzero"` // absolute path in the sandbox
	ReadOnly bool   `json:"read_only,omitzero"`
}

// Tmpfs is a directory of a test or service that is kept in memory.
type Tmpfs struct {
	Target string `json:"target,omitzero"` // absolute path in the sandbox
	Size   int64  `json:"size,omitzero"`   // bytes; 0: what the memory limit leaves
	Mode   uint32 `json:"mode,omitzero"`   // of its root directory; 0: 1777
	UID    uint32 `json:"uid,omitzero"`    // owner of its root directory
	GID    uint32 `json:"gid,omitzero"`
	Exec   bool   `json:"exec,omitzero"` // programs in it may be run
}

// Test is one command run inside the exact image.
type Test struct {
	Name        string            `json:"name,omitzero"`
	Command     []string          `json:"command,omitzero"`     // argv; the string form of .ci.yml becomes ["/bin/sh", "-c", s]
	Entrypoint  []string          `json:"entrypoint,omitzero"`  // nil: the command runs as it is, without the image's entrypoint
	Environment map[string]string `json:"environment,omitzero"` // over the image's own
	Network     Network           `json:"network,omitzero"`
	Volumes     []Volume          `json:"volumes,omitzero"`
	Tmpfs       []Tmpfs           `json:"tmpfs,omitzero"`
	Secrets     []string          `json:"secrets,omitzero"`
	Services    []string          `json:"services,omitzero"`
	User        string            `json:"user,omitzero"`        // over the image's own
	WorkingDir  string            `json:"working_dir,omitzero"` // over the image's own
	Timeout     time.Duration     `json:"timeout,omitzero"`
	Retry       int               `json:"retry,omitzero"`
	Resources   Resources         `json:"resources,omitzero"`
	JUnit       []string          `json:"junit,omitzero"`    // paths under /out, globs allowed
	NoCache     bool              `json:"no_cache,omitzero"` // `cache: false`: never reuse a result
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
	ID     string            `json:"id,omitzero"` // "api", "api/unit", with a matrix "api[python=3.12]", "api[python=3.12]/unit"; unique in the plan
	Kind   Kind              `json:"kind,omitzero"`
	Image  string            `json:"image,omitzero"`  // name under `images`
	Matrix map[string]string `json:"matrix,omitzero"` // nil without a matrix
	Needs  []int             `json:"needs,omitzero"`  // indexes of earlier tasks only: a cycle cannot be written down
	Build  *Build            `json:"build,omitzero"`  // of a BuildTask, interpolated
	Test   *Test             `json:"test,omitzero"`   // of a TestTask, interpolated
	Skip   string            `json:"skip,omitzero"`   // why the event does not run it ("paths: nothing under api/ changed"); empty: it runs
}

// Plan is a pipeline expanded for one event, topologically ordered.
type Plan struct {
	Tasks        []Task                `json:"tasks,omitzero"`
	Services     map[string]Service    `json:"services,omitzero"` // those the tasks use, interpolated
	Volumes      map[string]VolumeSeed `json:"volumes,omitzero"`
	Environments []string              `json:"environments,omitzero"` // paths of environment files, as written
	Digest       digest.Digest         `json:"digest,omitzero"`       // of the canonical JSON of everything above
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
