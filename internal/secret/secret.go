// Package secret finds the values of an environment's secrets where its file says
// they are: in a file, a variable, what a command prints, or an age-encrypted file
// beside the environment file. A Vault keeps those that the server's runs read,
// encrypted.
//
// It refuses to write a value anywhere unencrypted, and to name one in an error:
// whoever starts a process asks for it then, and hands it over in that process's
// environment, never in its arguments.
package secret

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
	maxSize = 64 << 10 // bytes; the kernel takes 128 KiB for one variable
	timeout = 30 * time.Second
)

// Resolver finds values at the moment they are needed.
type Resolver struct {
	Getenv   func(string) (string, bool) // of the process that delivers
	Identity string                      // file of age identities; empty: there is no key for any
}

// Value gives what a secret's source holds, without the line end that editors
// and commands put after it. beside reads an age-encrypted file by the name that
// the secret gives it. An error names the place and never the value.
func (r Resolver) Value(ctx context.Context, name string, s pipeline.Secret, beside func(name string) ([]byte, error)) (string, error) {
	data, err := r.read(ctx, s, beside)
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it is larger than %d KiB", maxSize>>10)
	}
	if err == nil && bytes.IndexByte(data, 0) >= 0 {
		err = errors.New("it holds a zero byte, which no variable can")
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	return string(bytes.TrimRight(data, "\r\n")), nil
}

func (r Resolver) read(ctx context.Context, s pipeline.Secret, beside func(string) ([]byte, error)) ([]byte, error) {
	switch {
	case s.File != "":
		f, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("%w; make the file, readable by root alone", err)
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxSize+1))
	case s.Env != "":
		value, ok := r.Getenv(s.Env)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set for the process that delivers; set it where that is started (for containers of `deliver: local` that is `slipway supervise`)", s.Env)
		}
		return []byte(value), nil
	case len(s.Command) > 0:
		return output(ctx, s.Command)
	case s.Age != "":
		sealed, err := beside(s.Age)
		if err != nil {
			return nil, err
		}
		return r.decrypt(s.Age, sealed)
	}
	return nil, errors.New("its source is not named; write file, env, command or age")
}

// output runs a command that prints a secret. Its words may be told, what it
// prints may not: not even when it fails.
func output(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	out := &limited{left: maxSize + 1}
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
