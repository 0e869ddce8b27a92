package wire

// HelperFD is the helper's end of its socket (SOCK_SEQPACKET, one JSON value a
// message). The helper ends when the socket does, and takes its sandboxes along.
const HelperFD = 3

// MaxMessage bounds one message to or from the helper, in bytes.
const MaxMessage = 192 << 10

// Op is what the helper is asked to do.
type Op string

// The helper's operations.
const (
	Create  Op = "create"  // make a sandbox whose agent waits for an Exec; the agent's socket travels as SCM_RIGHTS
	Measure Op = "measure" // read its counters
	Kill    Op = "kill"    // kill everything in it, at once
	Destroy Op = "destroy" // kill, and remove all of it
	Settle  Op = "settle"  // wait until what a crash left behind is reaped
	Freeze  Op = "freeze"  // keep sandboxes beyond the runner's end; their agents' sockets travel as SCM_RIGHTS
)

// Call is one request to the helper. Calls run at the same time.
type Call struct {
	Seq     uint64
	Op      Op
	ID      string
	Sandbox *Sandbox `json:",omitempty"` // of a Create
	Frozen  *Frozen  `json:",omitempty"` // of a Freeze
}

// Sandbox says what to make.
type Sandbox struct {
	Lowers   []string // directories, topmost first
	Binds    []Bind
	Tmpfs    []Tmpfs
	Secrets  bool // mount a tmpfs at SecretsDir
	Hostname string
	Limits   Limits
	Volatile bool // nothing in it outlives it, so that fsync(2) and its like have nothing to do
}

// Bind is a directory or file of the host inside the sandbox, owners mapped.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// Tmpfs is a directory kept in memory; its pages count for the memory limit.
type Tmpfs struct {
	Target   string
	Size     int64 // bytes
	Mode     uint32
	UID, GID int // inside the sandbox
	Exec     bool
}

// Limits of one sandbox; every field is set.
type Limits struct {
	CPUs   float64
	Memory int64 // bytes, swap included
	Pids   int64
	Disk   int64 // bytes in the writable layer, /out included
}

// Reply answers the Call of the same Seq.
type Reply struct {
	Seq      uint64
	Protocol string    `json:",omitempty"` // of the first, which answers nothing
	Error    string    `json:",omitempty"`
	Made     *Made     `json:",omitempty"` // of a Create
	Counts   *Counters `json:",omitempty"` // of a Measure
}

// Made says where a new sandbox is.
type Made struct {
	PID      int    // of the agent, in the host's pid namespace
	Out      string // host directory that is /out
	TimingUS map[string]int64
}

// Counters are the cgroup's and the disk watch's word on a sandbox.
type Counters struct {
	OOMKills   uint64
	PeakMemory int64 // bytes; 0 when the kernel does not say
	CPU        int64 // nanoseconds, user and system
	PidsDenied uint64
	Disk       string // why the disk watch killed it; empty when it did not
}
