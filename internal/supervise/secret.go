package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"slipway/pipeline"
)

const (
	maxSecret     = 64 << 10 // bytes; the kernel takes 128 KiB for one variable
	secretTimeout = 30 * time.Second
)

// resolver finds the value of a secret: where it says, at the moment it is
// needed. Decrypt reads an age-encrypted file; nil where there is no key for any.
type resolver struct {
	getenv  func(string) (string, bool)
	decrypt func(path string) ([]byte, error)
}

// value gives what a secret's source holds, without the line end that editors
// and commands put after it. An error names the place and never the value.
func (r resolver) value(ctx context.Context, name string, s pipeline.Secret) (string, error) {
	data, err := r.read(ctx, s)
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("it is larger than %d KiB", maxSecret>>10)
	}
	if err == nil && bytes.IndexByte(data, 0) >= 0 {
		err = errors.New("it holds a zero byte, which no variable can")
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	return string(bytes.TrimRight(data, "\r\n")), nil
}

func (r resolver) read(ctx context.Context, s pipeline.Secret) ([]byte, error) {
	switch {
	case s.File != "":
		f, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("%w; make the file, readable by root alone", err)
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxSecret+1))
	case s.Env != "":
		value, ok := r.getenv(s.Env)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set for the process that runs containers; set it where `slipway supervise` is started", s.Env)
		}
		return []byte(value), nil
	case len(s.Command) > 0:
		return output(ctx, s.Command)
	case s.Age != "" && r.decrypt != nil:
		return r.decrypt(s.Age)
	case s.Age != "":
		return nil, fmt.Errorf("%s is encrypted, and there is no key for it here; give one with --age-identity", s.Age)
	}
	return nil, errors.New("its source is not named; write file, env, command or age")
}

// output runs a command that prints a secret. Its words may be told, what it
// prints may not: not even when it fails.
func output(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	out := &limited{left: maxSecret + 1}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], errors.Join(err, context.Cause(ctx)))
	}
	return out.data, nil
}

// limited keeps the first bytes of what is written to it.
type limited struct {
	data []byte
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.data = append(l.data, p[:n]...)
	l.left -= n
	return len(p), nil
}
