// Package wire holds what the parts of a sandbox say to each other: the runner
// and the agent that is PID 1 inside (over a stream socket, in a small binary
// form), the runner and the helper that makes sandboxes (JSON in datagrams).
//
// It refuses to import anything heavy: the agent links it, and the agent's
// start is part of every sandbox's start. It holds no behaviour beyond coding.
package wire

// AgentFD is the agent's end of its socket. The agent ends when the socket
// does: with PID 1 gone, the kernel kills everything else in the sandbox.
const AgentFD = 3

// ExeFD is the sealed file the agent was started from. It closes it first.
const ExeFD = 4

// FilterFD is the compiled seccomp filter, an array of struct sock_filter. The
// agent installs it before anything else, or ends.
const FilterFD = 5

// HoldArg as its first argument makes the agent a mere holder of the namespaces
// it was started in, until its standard input ends.
const HoldArg = "hold"

// Nonce ties a completion record to the one request it answers.
type Nonce [16]byte

// Exec asks the agent to run one command. The write end of the output pipe
// travels beside it as SCM_RIGHTS, then the read end of its input and the write
// end of a pipe of its own for errors, where it has them. With a terminal nothing
// travels: the terminal comes back beside Started.
type Exec struct {
	Nonce   Nonce
	Args    []string
	Env     []string // KEY=VALUE, complete but for PATH, HOME and HOSTNAME, which the agent fills in where missing
	User    string   // as in an image's config: name or number, optionally ":group"; empty is root
	Dir     string   // made when missing; empty is /
	Secrets []Secret
	Resolv  string // content of /etc/resolv.conf; empty leaves it so
	Hosts   string // added to /etc/hosts
	Beside  bool   // beside the main command: the sandbox does not end with it
	Stdin   bool   // it reads a pipe, not /dev/null
	Stderr  bool   // it has a pipe of its own for errors
	TTY     bool   // it runs in a terminal
	Rows    int32  // of the terminal
	Cols    int32
	Out     string // directory that is handed to the user; empty for none
}

// Secret is one file under SecretsDir.
type Secret struct {
	Name string // a plain file name
	Data []byte
}

// SecretsDir is where a sandbox with secrets has a tmpfs.
const SecretsDir = "/run/secrets"

// Connect gives the agent one more socket, which travels beside it: commands
// beside the main one may be asked for on it, and what is said of them is said
// there. They are ended with it.
type Connect struct{}

// Signal sends a signal to the command that the Exec of the same nonce started;
// SIGKILL goes to its process group.
type Signal struct {
	Nonce  Nonce
	Number int32
}

// Started says that the command's first instruction ran.
type Started struct {
	Nonce Nonce
	At    int64 // nanoseconds of CLOCK_MONOTONIC, which namespaces share
}

// Done is the completion record: without it nothing has passed.
type Done struct {
	Nonce       Nonce
	Exit        int32 // exit code, or 128+n when signal n ended the command
	Signal      int32 // n, or 0
	Interrupted bool  // Stop came before the command ended by itself
	Lost        bool  // something outside the sandbox still held the output pipe
	Bytes       uint64
	Started     int64 // nanoseconds of CLOCK_MONOTONIC
	Ended       int64
}

// Refused says why the command could not be started. That is the user's
// matter: a missing program, an unknown user.
type Refused struct {
	Nonce  Nonce
	Exit   int32 // 127 not found, 126 not executable, as shells have it
	Reason string
}

// The kinds of frame. Setup is the helper's to the agent. Exec, Stop, Signal and
// Connect go to the agent, the others come from it.
const (
	KindExec byte = iota + 1
	KindStop
	KindStarted
	KindDone
	KindRefused
	KindSignal
	KindSetup
	KindConnect
)

// HeaderSize of a frame: kind, then the length of its body.
const HeaderSize = 5

// MaxBody bounds a frame: Linux takes some 6 MiB of arguments and environment,
// and secrets are small.
const MaxBody = 16 << 20
