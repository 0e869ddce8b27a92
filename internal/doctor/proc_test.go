package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a machine's /proc and /sys as files.
func fake(t *testing.T, files map[string]string) Input {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Input{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}
}

const (
	v1Mounts = `31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
33 25 0:29 / /sys/fs/cgroup/pids rw,nosuid shared:11 - cgroup cgroup rw,pids
34 25 0:30 / /sys/fs/cgroup/devices rw,nosuid shared:12 - cgroup cgroup rw,devices
`
	hybridMount = "30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:8 - cgroup2 cgroup2 rw,nsdelegate\n"
	v2Mount     = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:8 - cgroup2 cgroup2 rw,nsdelegate\n"
	ext4Mount   = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
)

func v1Files(mounts string) map[string]string {
	return map[string]string{
		"proc/self/mountinfo": mounts, "sys/fs/cgroup/cpu,cpuacct/tasks": "", "sys/fs/cgroup/memory/tasks": "",
		"sys/fs/cgroup/pids/tasks": "", "sys/fs/cgroup/devices/tasks": "",
	}
}

func v2Files(more map[string]string) map[string]string {
	files := map[string]string{
		"proc/self/mountinfo": ext4Mount + v2Mount, "proc/self/cgroup": "0::/user.slice/session-1.scope\n", "proc/1/comm": "systemd\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n", "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n",
	}
	for k, v := range more {
		files[k] = v
	}
	return files
}

func TestCgroups(t *testing.T) {
	noMemory := v1Files(ext4Mount + hybridMount + `31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 25 0:30 / /sys/fs/cgroup/devices,pids rw - cgroup cgroup rw,devices,pids
`)
	noMemory["sys/fs/cgroup/devices,pids/tasks"] = ""
	notWritable := v1Files(v1Mounts)
	delete(notWritable, "sys/fs/cgroup/pids/tasks")
	for name, tt := range map[string]struct {
		files       map[string]string
		finding     string
		state       State
		detail, fix string
	}{
		"v1":                  {v1Files(ext4Mount + v1Mounts), "cgroups", OK, "version 1 with", ""},
		"hybrid":              {v1Files(v1Mounts + hybridMount), "cgroups", OK, "version 1, hybrid with", ""},
		"v1 without memory":   {noMemory, "cgroups", Fail, "hybrid without memory", "cgroup_enable=memory"},
		"v1 not writable":     {notWritable, "cgroups", Fail, "not writable: pids", "--privileged"},
		"none":                {v1Files(ext4Mount), "cgroups", Fail, "none are mounted", "mount -t cgroup2"},
		"no proc":             {nil, "cgroups", Fail, "mountinfo", "mount -t proc"},
		"v2":                  {v2Files(nil), "cgroups", OK, "version 2 with memory", ""},
		"v2 without memory":   {v2Files(map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu pids"}), "cgroups", Fail, "version 2 without memory", "delegate"},
		"v2 root, enableable": {v2Files(map[string]string{"sys/fs/cgroup/cgroup.subtree_control": "", "sys/fs/cgroup/cgroup.procs": "1\n"}), "cgroups", OK, "version 2 with", ""},
		"v2 in a container": {v2Files(map[string]string{
			"sys/fs/cgroup/cgroup.subtree_control": "", "sys/fs/cgroup/cgroup.procs": "1\n", "sys/fs/cgroup/cgroup.type": "domain",
		}), "cgroups", Fail, "holds processes", "cgroup.procs"},
		"a session":    {v2Files(nil), "cgroup delegation", OK, "not a systemd service", ""},
		"a service":    {v2Files(map[string]string{"proc/self/cgroup": "0::/system.slice/slipway.service/main\n"}), "cgroup delegation", Warn, "/system.slice/slipway.service", "systemctl edit slipway.service"},
		"another init": {v2Files(map[string]string{"proc/self/cgroup": "0::/x.service", "proc/1/comm": "runit\n"}), "cgroup delegation", OK, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			in := fake(t, tt.files)
			want(t, find(t, checkCgroups(in), tt.finding), tt.state, tt.detail, tt.fix)
			if left, _ := filepath.Glob(in.Sys + "/fs/cgroup/*/slipway-doctor*"); len(left) > 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	for name, tt := range map[string]struct {
		status string
		state  State
		detail string
		fix    string
	}{
		"all":              {"Name:\tx\nCapEff:\t000001ffffffffff\n", OK, "", ""},
		"docker's default": {"CapEff:\t00000000a80425fb\n", Fail, "SYS_ADMIN (mounts and namespaces), NET_ADMIN", "--cap-add SYS_ADMIN --cap-add NET_ADMIN"},
		"unreadable":       {"Name:\tx\n", Warn, "CapEff", "container"},
	} {
		t.Run(name, func(t *testing.T) {
			got := checkCapabilities(fake(t, map[string]string{"proc/self/status": tt.status}))
			want(t, find(t, got, "capabilities"), tt.state, tt.detail, tt.fix)
		})
	}
}

func TestSettings(t *testing.T) {
	in := fake(t, map[string]string{
		"proc/sys/user/max_user_namespaces": "0\n", "proc/sys/kernel/osrelease": "6.1.0-9-amd64\n",
		"proc/sys/fs/inotify/max_user_instances": "16\n", "proc/sys/fs/inotify/max_user_watches": "100000\n",
		"proc/sys/fs/binfmt_misc/qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\n",
		"proc/sys/fs/binfmt_misc/qemu-s390x":   "disabled\n", "proc/sys/fs/binfmt_misc/python3": "enabled\n",
	})
	ns, file := checkUserNS(in)
	if file != nil {
		t.Error("a user namespace was made though the limit says none")
	}
	want(t, ns, Fail, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000")
	want(t, checkKernel(in), OK, "Linux 6.1.0-9-amd64", "")
	want(t, checkInotify(in), Warn, "16 instances", "sysctl -w fs.inotify.max_user_instances")
	want(t, checkBinfmt(in), OK, "emulated: aarch64", "")
	empty := fake(t, nil)
	want(t, checkBinfmt(empty), OK, "none beside linux/", "")
	want(t, checkInotify(empty), Warn, "not available", "CONFIG_INOTIFY_USER")
	want(t, checkKernel(empty), Fail, "", "mount -t proc")
	want(t, checkFiles(1024), Warn, "1024", "LimitNOFILE=65536")
	want(t, checkFiles(unix.RLIM_INFINITY), OK, "", "")
}
