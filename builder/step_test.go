package builder

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"slipway/pipeline"
)

// What a step sees of the machine it runs on.
func TestStepIsConfined(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": `FROM busybox:1
RUN cat /proc/self/uid_map > /uid_map; \
    ls /sys > /sys_list; \
    ip -o link > /links; \
    cat /etc/resolv.conf > /resolv; \
    mount -t tmpfs none /tmp 2> /mount_error && echo yes > /mounted || true; \
    chown 1000:1000 /tmp && ls -ln -d /tmp > /owner; \
    cat /proc/self/cgroup > /cgroup
USER app
RUN id -u > /tmp/id
`})
	out := build(t, b, Request{Dir: dir})
	if got := strings.Fields(fileIn(t, b, out.Image, "uid_map")); len(got) != 3 || got[0] != "0" || got[1] != "1073741824" || got[2] != "65536" {
		t.Errorf("user namespace: %q", got)
	}
	if got := fileIn(t, b, out.Image, "sys_list"); got != "" {
		t.Errorf("/sys shows %q", got)
	}
	if got := fileIn(t, b, out.Image, "links"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "lo") {
		t.Errorf("network interfaces: %q", got)
	}
	if got := fileIn(t, b, out.Image, "resolv"); strings.Contains(got, "nameserver") {
		t.Errorf("resolv.conf: %q", got)
	}
	if got := fileIn(t, b, out.Image, "mount_error"); got == "" {
		t.Error("a step could mount")
	}
	if got := fileIn(t, b, out.Image, "owner"); !strings.Contains(got, "1000     1000") {
		t.Errorf("owner: %q", got)
	}
	if got := fileIn(t, b, out.Image, "tmp/id"); got != "1000\n" {
		t.Errorf("USER app ran as %q", got)
	}
	fs, err := b.Rootfs(context.Background(), out.Image, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(fs.Lowers[0], "etc/resolv.conf")); err == nil {
		t.Error("resolv.conf stayed in the image")
	}
	if err := fs.Release(); err != nil {
		t.Error(err)
	}
}

// A fork bomb ends with the step, not with the machine.
func TestStepPids(t *testing.T) {
	if testing.Short() {
		t.Skip("forks 8192 times")
	}
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN i=0; while [ $i -lt 9000 ]; do sleep 10000 & i=$((i+1)); done; echo survived > /s\n"})
	_, err := b.Build(context.Background(), Request{Name: "bomb", Dir: dir})
	var be *BuildError
	if !errors.As(err, &be) {
		t.Fatalf("9000 processes: %v", err)
	}
}

// Secrets, ssh keys and cache mounts reach the step and not the image.
func TestMounts(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": `FROM busybox:1 AS base
FROM base
RUN --mount=type=secret,id=token,mode=0444 sha256sum < /run/secrets/token > /token_sum
RUN --mount=type=secret,id=token,uid=1000 ls -ln /run/secrets/token > /token_owner
RUN --mount=type=secret,id=token,env=TOKEN [ "$TOKEN" = s3cr3t ]
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"
RUN --mount=type=cache,target=/c,sharing=shared cat /c/n > /before 2>/dev/null; echo run >> /c/n; cat /c/n > /after
RUN --mount=type=tmpfs,target=/t touch /t/x
RUN --mount=type=bind,source=f,target=/bound cat /bound > /from_bind
RUN --mount=type=bind,from=base,source=/bin,target=/other test -x /other/busybox
ARG WHO=nobody
LABEL who=$WHO
RUN echo $WHO > /who
`, "f": "bound\n", "key": sshKey(t)})
	r := Request{
		Dir: dir, Secrets: map[string][]byte{"token": []byte("s3cr3t"), "other": []byte("not asked for")},
		Build: pipeline.Build{Secrets: []string{"token"}, SSH: []string{"default=key"}, Args: map[string]string{"WHO": "me"}, Labels: map[string]string{"given": "yes"}},
	}
	out := build(t, b, r)
	for path, want := range map[string]string{"from_bind": "bound\n", "after": "run\n", "who": "me\n"} {
		if got := fileIn(t, b, out.Image, path); got != want {
			t.Errorf("/%s holds %q", path, got)
		}
	}
	if got := fileIn(t, b, out.Image, "token_owner"); !strings.Contains(got, "1000") {
		t.Errorf("owner of the secret: %q", got)
	}
	if l := out.Config.Config.Labels; l["who"] != "me" || l["given"] != "yes" {
		t.Errorf("labels %v", l)
	}
	text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(strings.Replace(string(text), "\n", "\nENV CHANGED=1\n", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out = build(t, b, r)
	if got := fileIn(t, b, out.Image, "after"); got != "run\nrun\n" {
		t.Errorf("the cache mount holds %q after two runs", got)
	}
}

func sshKey(tb testing.TB) string {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

// A step gets the network it is lent and gives it back.
func TestStepNetwork(t *testing.T) {
	o := testOptions(t)
	lent, back := 0, 0
	o.StepNetwork = func(context.Context) (StepNet, error) {
		lent++
		return StepNet{Nameservers: []string{"192.0.2.53"}, Close: func() error { back++; return nil }}, nil
	}
	b := open(t, o)
	importBusybox(t, b, "busybox:1")
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN cp /etc/resolv.conf /r\nRUN --network=none cp /etc/resolv.conf /n\n"})
	out := build(t, b, Request{Dir: dir})
	if got := fileIn(t, b, out.Image, "r"); got != "nameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf: %q", got)
	}
	if got := fileIn(t, b, out.Image, "n"); got != "" {
		t.Errorf("resolv.conf without a network: %q", got)
	}
	if lent != 1 || back != 1 {
		t.Errorf("lent %d networks, got %d back", lent, back)
	}
}

func TestCancel(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo running; sleep 1000\n"})
	cause := errors.New("the user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(context.Background())
	_, err := b.Build(ctx, Request{Name: "slow", Dir: dir, Progress: func(p pipeline.Progress) {
		for _, l := range p.Logs {
			if strings.Contains(string(l.Data), "running") {
				cancel(cause)
			}
		}
	}})
	if !errors.Is(err, cause) {
		t.Errorf("a cancelled build ended with %v", err)
	}
}
