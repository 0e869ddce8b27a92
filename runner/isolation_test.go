package runner_test

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner"
)

// No signal from inside ends the agent, or changes what a command gets. What is
// ignored where slipway was started is not ignored in a test.
func TestSignalsFromInside(t *testing.T) {
	signal.Ignore(syscall.SIGTSTP)
	defer signal.Reset(syscall.SIGTSTP)
	b := open(t)
	if out := b.passes(`for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; sleep 0.2; kill -0 1 && echo alive`); out != "alive\n" {
		t.Errorf("got %q", out)
	}
	res, out := b.run(pipeline.Test{Command: []string{"cat", "/proc/self/status"}})
	for _, want := range []string{"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"} {
		if res.State != pipeline.Passed || !strings.Contains(out, want) {
			t.Errorf("%s, and no %q in\n%s", res.State, want, out)
		}
	}
}

// Every namespace is the sandbox's own.
func TestNamespaces(t *testing.T) {
	b := open(t)
	out := b.passes(`for n in cgroup ipc mnt net pid user uts; do echo $n $(readlink /proc/self/ns/$n); done; cat /proc/self/uid_map; hostname; cat /etc/hostname; echo pid $$`)
	for _, n := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		host, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, n+" "+n+":[") || strings.Contains(out, host) {
			t.Errorf("%s namespace: host has %s, sandbox says\n%s", n, host, out)
		}
	}
	first := strings.Fields(strings.Split(out, "uts:")[1])
	if first[1] != "0" || first[2] == "0" || first[3] != "65536" || !strings.Contains(out, "\nslipway\nslipway\n") {
		t.Errorf("id map or hostname: %s", out)
	}
	if other := b.passes(`cat /proc/self/cgroup`); strings.Contains(other, "slipway-test") {
		t.Errorf("the sandbox sees where its cgroup is:\n%s", other)
	}
}

// Two sandboxes at the same time never share ids.
func TestOwnIDs(t *testing.T) {
	b := open(t)
	maps := make(chan string, 4)
	for range 4 {
		go func() { _, out := b.sh(`awk 2>/dev/null; cat /proc/self/uid_map; sleep 1`); maps <- out }()
	}
	seen := map[string]bool{}
	for range 4 {
		m := <-maps
		if seen[m] {
			t.Errorf("two sandboxes have %s", m)
		}
		seen[m] = true
	}
}

func TestPrivileges(t *testing.T) {
	b := open(t)
	for _, user := range []string{"", "bob"} {
		res, out := b.run(pipeline.Test{Command: []string{"cat", "/proc/self/status"}, User: user})
		if res.State != pipeline.Passed {
			t.Fatal(res, out)
		}
		want := []string{"CapInh:\t0000000000000000", "CapBnd:\t00000000800405fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}
		if user == "" {
			want = append(want, "CapEff:\t00000000800405fb")
		} else {
			want = append(want, "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000")
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("user %q: no %q in\n%s", user, w, out)
			}
		}
	}
}

// What is tried from inside, and must be refused.
func TestRefused(t *testing.T) {
	b := open(t)
	for name, script := range map[string]string{
		"mount":               `mount -t tmpfs none /tmp`,
		"remount":             `mount -o remount,rw /sys`,
		"unmount":             `umount /proc`,
		"user namespace":      `unshare -U true`,
		"mount namespace":     `unshare -m true`,
		"sysctl":              `echo 1 > /proc/sys/kernel/panic`,
		"core pattern":        `echo '|/bin/sh' > /proc/sys/kernel/core_pattern`,
		"sysrq":               `echo b > /proc/sysrq-trigger`,
		"kernel memory":       `head -c1 /proc/kcore | grep -q .`,
		"cgroup":              `for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo $$ > $f && exit 0; done; exit 1`,
		"sysfs":               `echo x > /sys/kernel/uevent_helper`,
		"agent's memory":      `cat /proc/1/mem | head -c1 | grep -q .`,
		"agent's files":       `ls /proc/1/fd/`,
		"agent's program":     `cat /proc/1/exe > /dev/null`,
		"agent's environment": `cat /proc/1/environ`,
		"agent's root":        `ls /proc/1/root/`,
		"agent's death":       `kill -9 1; sleep 0.2; exit 1`,
		"block device":        `head -c1 /dev/vda || head -c1 /dev/sda`,
		"hostname":            `hostname evil`,
		"raw socket":          `ping -c1 -W1 10.0.0.1`,
	} {
		t.Run(name, func(t *testing.T) {
			if res, out := b.sh(script); res.State != pipeline.Failed {
				t.Errorf("%s %s\n%s", res.State, res.Reason, out)
			}
		})
	}
}

// System calls that only seccomp or a missing capability stops, made directly.
func TestRefusedCalls(t *testing.T) {
	b := open(t)
	res, out := b.run(pipeline.Test{Command: []string{"/probe"}}, func(q *runner.Request) {
		q.Binds = []runner.Bind{{Source: programs.probe, Target: "/probe", ReadOnly: true}}
	})
	if res.State != pipeline.Passed || strings.Count(out, "refused") < 12 || strings.Contains(out, "ALLOWED") {
		t.Errorf("%+v\n%s", res, out)
	}
}

func TestProcAndSys(t *testing.T) {
	b := open(t)
	out := b.passes(`
for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && echo "$f $(head -c 10 $f 2>/dev/null | wc -c)"; done
ls /sys/firmware | wc -l
ls /dev | sort | tr '\n' ' '; echo
ls /sys/class/net
cat /etc/resolv.conf | wc -c
ps -o pid,args | grep -v -e PID -e ps -e sh -e grep -e sort
`)
	for _, f := range []string{"kcore", "keys", "timer_list", "interrupts"} {
		if strings.Contains(out, "/proc/"+f+" ") && !strings.Contains(out, "/proc/"+f+" 0\n") {
			t.Errorf("/proc/%s can be read:\n%s", f, out)
		}
	}
	for _, want := range []string{"fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n", "\nlo\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// The agent is the one process that began outside. It holds nothing of the host
// open: no file, no directory, and not what the runner's own parent left open.
func TestNothingOfTheHostIsOpen(t *testing.T) {
	left, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0) // as a careless parent would: not closed by exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	b := open(t)
	var files []string
	out := b.passes(`ls /proc/self/fd | wc -l`, func(q *runner.Request) {
		q.Egress = func(_ context.Context, netns string) (io.Closer, []netip.Addr, error) {
			dir := strings.TrimSuffix(netns, "ns/net") + "fd"
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				file, _ := os.Readlink(filepath.Join(dir, e.Name()))
				files = append(files, file)
			}
			return io.NopCloser(nil), nil, err
		}
	})
	if out != "4\n" { // three, and the directory that ls reads
		t.Errorf("the command has %s files open", out)
	}
	for _, f := range files {
		kind, _, _ := strings.Cut(f, ":")
		if f != "/dev/null" && kind != "socket" && kind != "pipe" && kind != "anon_inode" {
			t.Errorf("the agent has %s open", f)
		}
	}
	if len(files) < 4 {
		t.Errorf("only %v are open: is this the agent?", files)
	}
}

// An image may have links where the kernel's file systems go. They lead nowhere
// but into the image, and never hide that something is not where it belongs.
func TestImagesWithLinksForMountPoints(t *testing.T) {
	b := open(t)
	for _, name := range []string{"proc", "sys"} {
		top := t.TempDir()
		if err := os.Symlink("/etc", filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
		_, err := b.Test(t.Context(), b.request(pipeline.Test{Command: []string{"true"}}, lowers(top, b.image)), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "mount /"+name) {
			t.Errorf("/%s is a link: %v", name, err)
		}
	}
	top := t.TempDir()
	if err := os.Symlink("/devices", filepath.Join(top, "dev")); err != nil {
		t.Fatal(err)
	}
	if out := b.passes(`ls /devices/pts/ptmx && echo x >/dev/null && ls -l /devices/null | cut -c1`, lowers(top, b.image)); out != "/devices/pts/ptmx\nc\n" {
		t.Errorf("/dev is a link: %q", out)
	}
}

// There is a loopback device, up, and nothing else: calls out fail at once.
func TestNoNetwork(t *testing.T) {
	b := open(t)
	out := b.passes(`ip link | grep -c ': '; ip route | wc -l
nc -l -p 80 -e cat & sleep 0.3; echo over-loopback | nc -w 2 127.0.0.1 80
nc -w 5 192.0.2.2 80 </dev/null && echo REACHED || echo unreachable`)
	if !strings.HasPrefix(out, "1\n0\n") || !strings.Contains(out, "over-loopback\n") || !strings.Contains(out, "unreachable") || strings.Contains(out, "REACHED") {
		t.Errorf("got %s", out)
	}
}

// Nothing a test does reaches the image's layers, or the next test.
func TestLayersAreNotWrittenTo(t *testing.T) {
	b := open(t)
	before := tree(t, b.image)
	b.passes(`echo changed > /etc/passwd; rm -rf /srv /bin/true; touch /new; chmod 777 /etc; chown 5:5 /home/bob; cat /etc/secret-of-the-layer`)
	if after := tree(t, b.image); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if out := b.passes(`ls -d /new /srv; head -1 /etc/passwd; stat -c '%a %u' /etc /home/bob`); !strings.HasPrefix(out, "/srv\nroot:") && !strings.Contains(out, "/srv\n") {
		t.Errorf("the next test sees\n%s", out)
	}
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "cd "+dir+" && find . -printf '%p %m %U %G %s %T@ %l\n' | sort && find . -type f -exec md5sum {} + | sort").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Layers lie over each other, the topmost first.
func TestLayers(t *testing.T) {
	b := open(t)
	top, mid := t.TempDir(), t.TempDir()
	for dir, files := range map[string]map[string]string{top: {"both": "top", "t": "t"}, mid: {"both": "mid", "m": "m"}} {
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, out := b.sh(`cat /both /t /m`, lowers(top, mid, b.image))
	if out != "toptm" {
		t.Errorf("got %q", out)
	}
}
