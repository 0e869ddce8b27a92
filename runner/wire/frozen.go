package wire

import "time"

// ControlName is the socket (SOCK_SEQPACKET, one JSON value a message) in the
// directory of a helper that has frozen something. It answers the requests below.
const ControlName = "control"

// FrozenName is the file beside it: a JSON list of the id ranges in use, counted
// from the root's first. As long as the directory is locked it is true.
const FrozenName = "frozen"

// MaxMembers is how many sandboxes may be frozen as one.
const MaxMembers = 200

// Frozen is a failed test's sandbox, with those of its services, that stays.
type Frozen struct {
	Name    string        // RUN/TASK
	Members []Member      // the test first
	Hold    []string      `json:",omitempty"` // files to hold open beside them: what their network hangs on
	Keep    time.Duration // from now, and from the end of each later use
	Until   time.Time     // told by List: when it is removed, unless it is used; set by the helper
	Users   int           // told by List: who has something open in it
}

// Member is one sandbox of a Frozen.
type Member struct {
	ID   string
	Name string // of the service; empty for the test
	// Exec is what it ran; further commands have its user, directory and environment.
	Exec Exec
}

// Asked is a request to a helper with frozen sandboxes. Its connection counts as
// a use until it is closed.
type Asked struct {
	Op      string // List, Attach or Thaw, below
	Name    string // of the frozen; not for List
	Service string // for Attach: of whose sandbox; empty is the test's
}

// What can be asked.
const (
	AskList   = "list"   // all that are frozen, without their Members' Exec
	AskAttach = "attach" // one more socket for an agent, which travels beside it
	AskThaw   = "thaw"   // remove it; answered when it is gone
)

// Answer to an Asked.
type Answer struct {
	Error  string   `json:",omitempty"`
	Frozen []Frozen `json:",omitempty"` // for List
	Exec   *Exec    `json:",omitempty"` // for Attach: of the member
}
