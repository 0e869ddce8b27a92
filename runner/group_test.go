package runner_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/network"
	"slipway/pipeline"
	"slipway/runner"
)

// segment is the real private network, as cmd/slipway hands it to the runner.
func segment(ctx context.Context) (runner.Network, error) {
	s, err := network.NewSegment(ctx)
	if err != nil {
		return runner.Network{}, err
	}
	return runner.Network{
		Address: func(n int) ([]netip.Addr, error) {
			a, err := network.SegmentAddress(n)
			return []netip.Addr{a.IPv4, a.IPv6}, err
		},
		Join: func(ctx context.Context, netns string, n int) error {
			a, err := network.SegmentAddress(n)
			if err != nil {
				return err
			}
			return s.Join(ctx, netns, a)
		},
		Dial: network.Dial, Close: s.Close, Path: s.Path(),
	}, nil
}

// service is one over the busybox image that runs a shell script.
func (b *bench) service(name, script string, edit ...func(*runner.Service)) runner.Service {
	s := runner.Service{
		Name: name, Service: pipeline.Service{Command: []string{"/bin/sh", "-c", script}},
		Rootfs: func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{b.image}}, nil
		},
	}
	for _, e := range edit {
		e(&s)
	}
	return s
}

func beside(services ...runner.Service) func(*runner.Request) {
	return func(q *runner.Request) { q.Services, q.Network = services, segment }
}

// checked waits for a service by a command, looked at often.
func checked(words ...string) func(*runner.Service) {
	return func(s *runner.Service) {
		s.Service.Healthcheck = &pipeline.Healthcheck{Test: words, Interval: 20 * time.Millisecond, Timeout: time.Minute, Retries: 3000}
	}
}

func after(name, condition string) func(*runner.Service) {
	return func(s *runner.Service) { s.Service.DependsOn = map[string]string{name: condition} }
}

const answers = "exec nc -ll -p 7 -e echo hello from $HOSTNAME"

// TestServicesAreReachedByName, on both address families, from the test and from
// each other.
func TestServicesAreReachedByName(t *testing.T) {
	t.Parallel()
	b := open(t)
	both := beside(
		b.service("db", answers, checked("CMD", "nc", "db", "7")),
		b.service("web", "nc db 7 && "+answers, checked("CMD-SHELL", "nc web 7"), after("db", "service_healthy")),
	)
	out := b.passes(`nc db 7; nc web 7; for a in $(grep db /etc/hosts | cut -f1); do nc $a 7; done; grep -c . /etc/hosts`, both)
	if strings.Count(out, "hello from db") != 3 || !strings.Contains(out, "hello from web") {
		t.Error(out)
	}
}

func TestEveryRunHasItsOwnServices(t *testing.T) {
	t.Parallel()
	b := open(t)
	done := make(chan string)
	for _, name := range []string{"one", "two"} {
		go func() {
			s := b.service("db", "exec nc -ll -p 7 -e echo "+name, checked("CMD", "nc", "db", "7"))
			var out strings.Builder
			res, err := b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"sh", "-c", "sleep 0.2; nc db 7"}}, beside(s)), &out)
			if err != nil || res.State != pipeline.Passed || strings.TrimSpace(out.String()) != name {
				t.Errorf("run %s: %v %+v %s", name, err, res, out.String())
			}
			done <- name
		}()
	}
	<-done
	<-done
}

func TestServiceFailures(t *testing.T) {
	t.Parallel()
	b := open(t)
	healthy := checked("CMD", "true")
	for name, c := range map[string]struct {
		services []runner.Service
		script   string
		want     string // in the reason
		shown    string // in the output
	}{
		"ends before it is ready": {
			[]runner.Service{b.service("db", "echo no space left; exit 3", checked("CMD", "false"))},
			"true",
			"service db ended before the test began: exit code 3", "no space left",
		},
		"ends while the test runs": {
			[]runner.Service{b.service("db", "sleep 0.3; echo oh; exit 4", healthy)},
			"sleep 60",
			"service db ended while the test ran: exit code 4", "oh",
		},
		"never gets healthy": {
			[]runner.Service{b.service("db", "echo waiting; sleep 60", func(s *runner.Service) {
				s.Service.Healthcheck = &pipeline.Healthcheck{Test: []string{"CMD-SHELL", "echo not yet; exit 1"}, Interval: 10 * time.Millisecond, Timeout: time.Minute, Retries: 3}
			})},
			"true",
			"service db never got healthy (/bin/sh -c echo not yet; exit 1): exit code 1: not yet", "waiting",
		},
		"has a check that is not in its image": {
			[]runner.Service{b.service("db", "sleep 600", checked("CMD", "curl", "-f", "http://db"))},
			"true",
			"service db can never get healthy (curl -f http://db): curl is not in the image", "service db, last lines",
		},
		"has a check by a shell that has not what it asks for": {
			[]runner.Service{b.service("db", "sleep 600", checked("CMD-SHELL", "curl -f http://db"))},
			"true",
			"service db can never get healthy (/bin/sh -c curl -f http://db): exit code 127: /bin/sh: curl: not found", "service db, last lines",
		},
		"is not in its image": {
			[]runner.Service{b.service("db", "", func(s *runner.Service) { s.Service.Command = []string{"mariadbd"} })},
			"true",
			"mariadbd is not in the image", "said nothing",
		},
		"a one-off that fails": {
			[]runner.Service{b.service("migrate", "exit 5"), b.service("web", "sleep 60", after("migrate", "service_completed_successfully"))},
			"true",
			"service migrate ended before the test began: exit code 5", "said nothing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			res, out := b.sh(c.script, beside(c.services...))
			if res.State != pipeline.Failed || !strings.Contains(res.Reason, c.want) {
				t.Errorf("%s: %s, want %s", res.State, res.Reason, c.want)
			}
			if !strings.Contains(out, c.shown) {
				t.Errorf("the output does not show %q:\n%s", c.shown, out)
			}
		})
	}
}

// TestCheckThatComesToBeThere in the start period, which is the user's word that it may.
func TestCheckThatComesToBeThere(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, words := range [][]string{{"CMD", "/tmp/well"}, {"CMD-SHELL", "/tmp/well"}} {
		b.passes("true", beside(b.service("db", `sleep 0.3; printf '#!/bin/sh\n' >/tmp/made; chmod +x /tmp/made; mv /tmp/made /tmp/well; sleep 600`, checked(words...), func(s *runner.Service) {
			s.Service.Healthcheck.StartPeriod, s.Service.Healthcheck.StartInterval = time.Hour, 10*time.Millisecond
		})))
	}
}

func TestServicesWaitForEachOther(t *testing.T) {
	t.Parallel()
	b := open(t)
	dir := t.TempDir()
	shared := func(s *runner.Service) { s.Binds = []runner.Bind{{Source: dir, Target: "/shared"}} }
	out := b.passes("cat /shared/order", beside(
		b.service("web", "echo web >>/shared/order; touch /tmp/up; sleep 60", shared, checked("CMD", "test", "-e", "/tmp/up"), after("migrate", "service_completed_successfully")),
		b.service("migrate", "sleep 0.1; echo migrate >>/shared/order", shared, after("db", "service_healthy")),
		b.service("db", "sleep 0.1; echo db >>/shared/order; touch /tmp/up; sleep 60", shared, checked("CMD", "test", "-e", "/tmp/up")),
	), func(q *runner.Request) { q.Binds = []runner.Bind{{Source: dir, Target: "/shared"}} })
	if out != "db\nmigrate\nweb\n" {
		t.Errorf("started in the order %q", out)
	}
}

// TestExposedPortIsWaitedFor where nobody wrote a healthcheck.
func TestExposedPortIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := open(t)
	late := b.service("db", "sleep 0.5; "+answers, func(s *runner.Service) {
		s.Rootfs = func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{b.image}, Config: ocispec.ImageConfig{ExposedPorts: map[string]struct{}{"7/tcp": {}, "53/udp": {}, "9000": {}}}}, nil
		}
	})
	if out := b.passes("nc db 7", beside(late)); out != "hello from db\n" {
		t.Error(out)
	}
}

// TestImagesOwnHealthcheck counts; NONE turns it off, and times go over its own.
func TestImagesOwnHealthcheck(t *testing.T) {
	t.Parallel()
	b := open(t)
	own := func(s *runner.Service) {
		s.Rootfs = func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{b.image}, Healthcheck: &pipeline.Healthcheck{Test: []string{"CMD", "false"}, Interval: time.Millisecond, Retries: 2}}, nil
		}
	}
	if res, _ := b.sh("true", beside(b.service("db", "sleep 60", own))); !strings.Contains(res.Reason, "never got healthy (false)") {
		t.Errorf("the image's check: %s", res.Reason)
	}
	b.passes("true", beside(b.service("db", "sleep 60", own, func(s *runner.Service) { s.Service.Healthcheck = &pipeline.Healthcheck{Test: []string{"NONE"}} })))
}

// TestAwaitedAndLookedAt is a service whose end one waits for, and whose health
// another.
func TestAwaitedAndLookedAt(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.passes("true", beside(
		b.service("load", "touch /tmp/up; sleep 0.5", checked("CMD", "test", "-e", "/tmp/up")),
		b.service("early", "sleep 60", after("load", "service_healthy")),
		b.service("late", "sleep 60", after("load", "service_completed_successfully")),
	))
	res, _ := b.sh("true", beside(
		b.service("load", "exit 0", checked("CMD", "false")),
		b.service("early", "sleep 60", after("load", "service_healthy")),
		b.service("late", "sleep 60", after("load", "service_completed_successfully")),
	))
	if res.State != pipeline.Failed || !strings.HasPrefix(res.Reason, "service load ended before the test began: exit code 0") {
		t.Errorf("%s: %s", res.State, res.Reason)
	}
}

// TestServicesReachNothingElse: no route leads out of the private network, not
// to the host, not to cloud metadata; calls fail at once.
func TestServicesReachNothingElse(t *testing.T) {
	t.Parallel()
	b := open(t)
	const tries = `for a in 169.254.169.254 192.0.2.1 fd00:ec2::254 2001:db8::1; do nc -w 20 $a 80 </dev/null 2>&1 && echo reached $a; done; ls /sys/class/net; echo tried`
	out := b.passes(tries+"; nc db 7", beside(b.service("db", "("+tries+") >/tmp/tried; exec nc -ll -p 7 -e cat /tmp/tried", checked("CMD-SHELL", "nc db 7"))))
	if strings.Contains(out, "reached") || strings.Count(out, "tried") != 2 || strings.Contains(out, "eth0") || strings.Contains(out, "switch") {
		t.Error(out)
	}
	if n := strings.Count(out, "unreachable"); n != 8 {
		t.Errorf("%d calls failed at once, want 8:\n%s", n, out)
	}
}

// TestServicesGetOutWithTheirTest, where the test may.
func TestServicesGetOutWithTheirTest(t *testing.T) {
	t.Parallel()
	b := open(t)
	g, err := network.New(network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	const says = `grep -c nameserver /etc/resolv.conf; ls /sys/class/net | wc -l; nc -w 20 169.254.169.254 80 </dev/null 2>&1 && echo reached`
	out := b.passes(says+"; nc db 7", beside(b.service("db", "("+says+") >/tmp/said; exec nc -ll -p 7 -e cat /tmp/said", checked("CMD-SHELL", "nc db 7"))), func(q *runner.Request) {
		q.Egress = func(ctx context.Context, netns string) (io.Closer, []netip.Addr, error) {
			link, err := g.Attach(ctx, netns)
			return link, []netip.Addr{g.Nameserver()}, err
		}
	})
	if lines := strings.Split(strings.TrimSpace(out), "\n"); strings.Contains(out, "reached") || strings.Count(out, "1\n3\n") != 2 {
		t.Errorf("said %q", lines)
	}
}

func TestCanceledWhileServicesStart(t *testing.T) {
	t.Parallel()
	b := open(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(200*time.Millisecond, func() { cancel(errors.New("enough")) })
	res, err := b.Test(ctx, b.request(pipeline.Test{Command: []string{"true"}}, beside(b.service("db", "sleep 60", checked("CMD", "false")))), nil)
	if err != nil || res.State != pipeline.Canceled || !strings.Contains(res.Reason, "enough") {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestContainer is the long-running kind: stopped with a signal first.
func TestContainer(t *testing.T) {
	t.Parallel()
	b := open(t)
	var out strings.Builder
	s := b.service("web", "trap 'echo goodbye; exit 7' TERM; echo up; touch /tmp/up; while :; do sleep 0.05; done", func(s *runner.Service) {
		s.Service.Environment = map[string]string{"NAME": "web"}
		s.Service.User = "bob"
	})
	c, err := b.Start(t.Context(), runner.ContainerRequest{ID: "web", Service: s.Service, Rootfs: s.Rootfs, Hostname: "web", Hosts: "10.0.0.1\tdb\n"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k := c.CheckOf(pipeline.Service{Healthcheck: &pipeline.Healthcheck{Test: []string{"CMD", "test", "-e", "/tmp/up"}, Interval: time.Second}}, nil)
	if problem, err := c.Await(t.Context(), k); problem != "" || err != nil {
		t.Fatal(problem, err)
	}
	var said strings.Builder
	exit, err := c.Exec(t.Context(), runner.Command{Args: []string{"sh", "-c", "echo $NAME $MORE $HOSTNAME; id -un; grep -c db /etc/hosts; exit 9"}, Env: map[string]string{"MORE": "more"}}, &said)
	if err != nil || exit.Code != 9 || said.String() != "web more web\nbob\n1\n" {
		t.Errorf("%+v, %v, %q", exit, err, said.String())
	}
	// However many there are at once, the agent makes no thread for them: it could
	// not where the commands have used up the processes.
	threads := func(script string) string {
		var out strings.Builder
		if exit, err := c.Exec(t.Context(), runner.Command{Args: []string{"sh", "-c", script + "; grep ^Threads: /proc/1/status"}}, &out); err != nil || exit.Code != 0 {
			t.Errorf("%+v, %v, %q", exit, err, out.String())
		}
		return out.String()
	}
	alone := threads("true")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			var said strings.Builder
			exit, err := c.Exec(t.Context(), runner.Command{Args: []string{"sh", "-c", "echo one; touch /tmp/many.$$; until [ -e /tmp/counted ]; do sleep 0.05; done; echo two"}}, &said)
			if err != nil || exit.Code != 0 || said.String() != "one\ntwo\n" {
				t.Errorf("one of many: %+v, %v, %q", exit, err, said.String())
			}
		})
	}
	among := threads("until [ $(ls /tmp/many.* 2>/dev/null | wc -l) = 20 ]; do sleep 0.05; done")
	threads("touch /tmp/counted")
	wg.Wait()
	if alone != among {
		t.Errorf("the agent alone: %s beside 20 commands: %s", alone, among)
	}
	exit, err = c.Exec(t.Context(), runner.Command{Args: []string{"sleep", "60"}, Timeout: 50 * time.Millisecond}, nil)
	if err != nil || !exit.TimedOut || exit.Code != 137 {
		t.Errorf("a command over its time: %+v, %v", exit, err)
	}
	c.Stop(time.Minute)
	if got := c.Exit(); got.Code != 7 || out.String() != "up\ngoodbye\n" {
		t.Errorf("stopped: %+v, %q", got, out.String())
	}
	if _, err := c.Exec(t.Context(), runner.Command{Args: []string{"true"}}, nil); err == nil {
		t.Error("a command ran in a container that has ended")
	}
}

func TestContainerThatDoesNotStop(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.service("web", "trap '' TERM; touch /tmp/up; while :; do sleep 0.05; done")
	c, err := b.Start(t.Context(), runner.ContainerRequest{ID: "web", Service: s.Service, Rootfs: s.Rootfs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k := c.CheckOf(pipeline.Service{Healthcheck: &pipeline.Healthcheck{Test: []string{"CMD", "test", "-e", "/tmp/up"}, Interval: time.Second}}, nil)
	if problem, err := c.Await(t.Context(), k); problem != "" || err != nil {
		t.Fatal(problem, err)
	}
	c.Stop(100 * time.Millisecond)
	if c.Exit().Code != 137 {
		t.Errorf("%+v", c.Exit())
	}
}

// TestServicesLeaveNothing: the group's sandboxes are the runner's, and go with it.
func TestServicesLeaveNothing(t *testing.T) {
	b := open(t)
	for range 3 {
		b.passes("nc db 7", beside(b.service("db", answers, checked("CMD", "nc", "db", "7"))))
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
