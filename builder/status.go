package builder

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"

	"slipway/builder/progress"
	"slipway/pipeline"
)

// tailSize is how much of a step's last output a BuildError carries, in bytes.
const tailSize = 16 << 10

// status follows BuildKit's news about one build and passes it on.
type status struct {
	task  string
	tell  func(pipeline.Progress)
	order []string
	byID  map[string]pipeline.Step
	tails map[string][]byte // by BuildKit's name of the step
	names map[string]string // the same, to the step's name

	ran   func() // called once, when a step begins to run
	began sync.Once
}

func newStatus(task string, tell func(pipeline.Progress)) *status {
	if tell == nil {
		tell = func(pipeline.Progress) {}
	}
	return &status{task: task, tell: tell, byID: map[string]pipeline.Step{}, tails: map[string][]byte{}, names: map[string]string{}}
}

func (s *status) add(news *client.SolveStatus) {
	p := progress.FromSolve(s.task, news)
	for _, st := range p.Steps {
		if old, ok := s.byID[st.ID]; !ok {
			s.order = append(s.order, st.ID)
		} else if old.Error != "" && st.Error == "" { // another half of the same step
			st.Error = old.Error
		}
		s.byID[st.ID] = st
	}
	for _, v := range news.Vertexes {
		s.names[v.Digest.String()] = v.Name
		if s.ran != nil && v.Started != nil && !v.Cached && userStep.MatchString(v.Name) {
			s.began.Do(s.ran)
		}
	}
	for _, l := range news.Logs {
		id := l.Vertex.String()
		s.tails[id] = appendTail(s.tails[id], l.Data)
	}
	s.tell(p)
}

// appendTail adds data and forgets all but about the last tailSize bytes.
func appendTail(tail, data []byte) []byte {
	tail = append(tail, data...)
	if len(tail) > 2*tailSize {
		tail = slices.Clone(tail[len(tail)-tailSize:])
	}
	return tail
}

// tail is the last output of a step, from the start of a line.
func (s *status) tail(vertex string) []byte {
	t := s.tails[vertex]
	if len(t) > tailSize {
		t = t[len(t)-tailSize:]
		if i := slices.Index(t, '\n'); i >= 0 {
			t = t[i+1:]
		}
	}
	return t
}

func (s *status) steps() []pipeline.Step {
	out := make([]pipeline.Step, 0, len(s.order))
	for _, id := range s.order {
		out = append(out, s.byID[id])
	}
	return out
}

// failed is the name of a step that ended with an error of its own, "" if none did.
func (s *status) failed() string {
	for _, id := range s.order {
		if st := s.byID[id]; st.Error != "" {
			return st.Name
		}
	}
	return ""
}

// userStep matches the name BuildKit gives a line of the Dockerfile:
// "[2/5] RUN make", "[build 1/3] FROM …", "[linux/arm64 test 4/4] COPY …".
var userStep = regexp.MustCompile(`^\[(?:[^\]]+ )?\d+/\d+\] (.*)`)

// cached tells whether no line of the Dockerfile ran. A FROM does not count:
// looking up a base is not work that was done again.
func (s *status) cached() bool {
	for _, st := range s.byID {
		m := userStep.FindStringSubmatch(st.Name)
		if m == nil || strings.HasPrefix(m[1], "FROM ") {
			continue
		}
		if !st.Cached && st.Started != nil {
			return false
		}
	}
	return true
}
