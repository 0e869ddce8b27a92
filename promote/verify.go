package promote

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"slipway/pipeline"
)

// between is how long a check is let be after it failed.
const between = 250 * time.Millisecond

// check runs a verify command until it succeeds, and says why it never did.
// Each try has what is left of the time; with it end all processes it started.
func check(ctx context.Context, v pipeline.Verify, environment, promotion string, out io.Writer) (reason string, err error) {
	limit, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	var said tail
	for try := 1; ; try++ {
		cmd := exec.CommandContext(limit, v.Command[0], v.Command[1:]...)
		cmd.Env = append(cmd.Environ(), "SLIPWAY_ENVIRONMENT="+environment, "SLIPWAY_PROMOTION="+promotion)
		endWhole(cmd)
		cmd.WaitDelay = time.Second
		said = tail{}
		cmd.Stdout, cmd.Stderr = &said, &said
		failed := cmd.Run()
		if failed == nil {
			return "", nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-limit.Done():
			_, _ = out.Write(said.text)
			return fmt.Sprintf("verification failed for %s (%d tries of %s): %v: %s", v.Timeout, try, strings.Join(v.Command, " "), failed, lastLineOf(said.text)), nil
		case <-time.After(between):
		}
	}
}

// tail keeps the end of what a command says.
type tail struct{ text []byte }

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - tailSize; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

func lastLineOf(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return oneLine(lines[len(lines)-1])
}
