package runner

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"slipway/pipeline"
)

// Docker's defaults of a healthcheck.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthRetries       = 3
	healthStartInterval = 5 * time.Second
)

// quick is the first pause between two looks at a container that is starting;
// each further one is twice as long, up to the interval that the check names.
// Such early looks cost a failure nothing.
const quick = 4 * time.Millisecond

// portPatience is how long a container without a check gets to open its port.
const portPatience = time.Minute

// probe is one look at a container: empty when it is well, else what is wrong;
// and whether no later look can find it otherwise, for the program is missing that looks.
type probe func(context.Context) (problem string, never bool)

// Check is how to see that a container is well.
type Check struct {
	look        probe
	what        string // in words
	interval    time.Duration
	retries     int
	startPeriod time.Duration
	started     time.Duration // between looks in the start period
	patience    time.Duration // 0: the retries alone decide
}

// CheckOf chooses: the service's healthcheck, else the image's own, else that its
// lowest exposed TCP port accepts a connection. nil: there is nothing to look at.
// dial connects from inside the container.
func (c *Container) CheckOf(s pipeline.Service, dial func(context.Context, uint16) error) *Check {
	h := s.Healthcheck
	if h == nil || len(h.Test) == 0 {
		h = mergeHealth(h, c.s.root.Healthcheck)
	}
	switch {
	case h != nil && same(h.Test, "NONE"):
		return nil
	case h != nil && len(h.Test) > 0:
		return c.commandCheck(h)
	}
	port := exposed(c.s.root.Config.ExposedPorts)
	if port == 0 {
		return nil
	}
	return &Check{
		what: fmt.Sprintf("port %d accepts connections", port), interval: 100 * time.Millisecond, patience: portPatience,
		look: func(ctx context.Context) (string, bool) {
			if err := dial(ctx, port); err != nil {
				return err.Error(), false
			}
			return "", false
		},
	}
}

// mergeHealth: a service may change the times of its image's check, as in Compose.
func mergeHealth(own, image *pipeline.Healthcheck) *pipeline.Healthcheck {
	if own == nil || image == nil {
		return image
	}
	h := *image
	for _, d := range []struct{ to, from *time.Duration }{
		{&h.Interval, &own.Interval}, {&h.Timeout, &own.Timeout}, {&h.StartPeriod, &own.StartPeriod}, {&h.StartInterval, &own.StartInterval},
	} {
		if *d.from > 0 {
			*d.to = *d.from
		}
	}
	if own.Retries > 0 {
		h.Retries = own.Retries
	}
	return &h
}

func same(test []string, one string) bool { return len(test) == 1 && test[0] == one }

func (c *Container) commandCheck(h *pipeline.Healthcheck) *Check {
	argv := h.Test[1:]
	shell := h.Test[0] == "CMD-SHELL"
	if shell {
		argv = []string{"/bin/sh", "-c", strings.Join(argv, " ")}
	}
	timeout := or(h.Timeout, healthTimeout)
	check := &Check{
		what: strings.Join(argv, " "), interval: or(h.Interval, healthInterval), retries: h.Retries,
		startPeriod: h.StartPeriod, started: or(h.StartInterval, healthStartInterval),
	}
	if check.retries <= 0 {
		check.retries = healthRetries
	}
	check.look = func(ctx context.Context) (problem string, never bool) {
		var said tail
		exit, err := c.Exec(ctx, Command{Args: argv, Timeout: timeout}, &said)
		switch {
		case err != nil:
			return err.Error(), false
		case exit.Code == 0 && !exit.TimedOut:
			return "", false
		}
		problem = exit.Reason
		if words := said.lines(3); words != "" {
			problem += ": " + strings.ReplaceAll(words, "\n", " / ")
		}
		return problem, exit.Code == notFound && (exit.Refused || shell)
	}
	return check
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// notFound is the exit code of a command that is not there, of slipway's agent and
// of every shell (POSIX, 2.8.2).
const notFound = 127

// Await looks until the container is well. It returns the problem when the check
// has failed as often as it may, or can never pass, or the container has ended; an
// error is that of ctx. In the start period all may still come, the program too.
func (c *Container) Await(ctx context.Context, k *Check) (problem string, err error) {
	begun := time.Now()
	pause, failures := quick, 0
	counted := begun
	for {
		var never bool
		problem, never = k.look(ctx)
		if problem == "" {
			return "", nil
		}
		select {
		case <-c.ended:
			return "", nil // its end is told by who waits for it
		default:
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		now := time.Now()
		longest := k.interval
		if k.startPeriod > 0 && now.Sub(begun) < k.startPeriod {
			longest, counted = min(k.interval, k.started), now
		} else if never {
			return fmt.Sprintf("can never get healthy (%s): %s; look with a program of the image, or give the healthcheck a start_period in which that comes to be there", k.what, problem), nil
		} else if now.Sub(counted) >= k.interval {
			failures, counted = failures+1, now
		}
		if k.retries > 0 && failures >= k.retries || k.patience > 0 && now.Sub(begun) > k.patience {
			return fmt.Sprintf("never got healthy (%s): %s", k.what, problem), nil
		}
		t := time.NewTimer(min(pause, longest))
		pause = min(2*pause, longest)
		select {
		case <-t.C:
		case <-c.ended:
			t.Stop()
			return "", nil
		case <-ctx.Done():
			t.Stop()
			return "", context.Cause(ctx)
		}
	}
}

// Watch looks at a container that was well, every interval, and tells whenever
// it stops being well or is so again, until ctx ends or the container does.
func (c *Container) Watch(ctx context.Context, k *Check, tell func(problem string)) {
	failures, told := 0, ""
	t := time.NewTicker(max(k.interval, time.Second))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
		problem, _ := k.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if problem == "" {
			failures = 0
		} else if failures++; failures < max(k.retries, 1) {
			continue
		}
		if (problem == "") != (told == "") {
			told = problem
			tell(problem)
		}
	}
}

// exposed is the lowest TCP port that an image exposes; 0: none.
func exposed(ports map[string]struct{}) uint16 {
	lowest := uint16(0)
	for p := range ports {
		number, protocol, _ := strings.Cut(p, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err == nil && n > 0 && (protocol == "" || protocol == "tcp") && (lowest == 0 || uint16(n) < lowest) {
			lowest = uint16(n)
		}
	}
	return lowest
}

// dialer connects to a port of the member at its own address, as Docker does: a
// server that listens on the loopback alone is not there for others.
func (n Network) dialer(netns string, member int) func(context.Context, uint16) error {
	return func(ctx context.Context, port uint16) error {
		all, err := n.Address(member)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		for _, a := range all {
			conn, derr := n.Dial(ctx, netns, netip.AddrPortFrom(a, port))
			if derr == nil {
				return conn.Close()
			}
			err = derr
		}
		return err
	}
}
