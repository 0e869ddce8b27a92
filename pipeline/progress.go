package pipeline

import "time"

// Progress is a batch of news about a running build or test, for a terminal, a
// log or a stream. It says what BuildKit's own status says, without its types.
type Progress struct {
	Task      string // ID of the task it belongs to
	Steps     []Step
	Logs      []StepLog
	Transfers []Transfer
	Warnings  []Warning
}

// Step is one build step or test. Later news about the same ID replaces earlier news.
type Step struct {
	ID        string // unique within the run
	Name      string // "[2/5] RUN make", "test unit"
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	Error     string   // why it failed; the user's own words where there are any
	Inputs    []string // IDs of the steps it waits for
}

// StepLog is a piece of a step's output, in order, not split at line ends.
type StepLog struct {
	Step   string
	Stream int // file descriptor of what wrote it; 0: of several, as they came
	Data   []byte
	Time   time.Time
}

// Transfer is a download, upload or unpacking within a step.
type Transfer struct {
	ID, Step, Name string
	Current, Total int64 // bytes; Total 0 when unknown
	Started        *time.Time
	Completed      *time.Time
}

// Warning is the Dockerfile checker's word on a line of it.
type Warning struct {
	Step, Short string
	Detail      []string
	URL         string
	File        string
	Line        int // 1-based; 0 when there is none
}
