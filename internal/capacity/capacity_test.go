package capacity_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"slipway/internal/capacity"
)

const (
	v1 = `31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
30 25 0:26 / /sys/fs/cgroup/unified rw shared:8 - cgroup2 cgroup2 rw,nsdelegate
`
	v1Container = `31 25 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	v2      = "30 25 0:26 / /sys/fs/cgroup rw shared:8 - cgroup2 cgroup2 rw\n"
	meminfo = "MemTotal:        8388608 kB\nMemFree:  1 kB\n"
)

func TestRead(t *testing.T) {
	cores := float64(runtime.NumCPU())
	tests := []struct {
		name   string
		mounts string
		cgroup string
		files  map[string]string
		want   capacity.Machine
	}{
		{"no cgroups", "", "", nil, capacity.Machine{CPUs: cores, Memory: 8 << 30}},
		{"v1 without limits", v1, "4:memory:/\n2:cpu,cpuacct:/\n0::/\n", map[string]string{
			"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
		}, capacity.Machine{CPUs: cores, Memory: 8 << 30}},
		{"v1, nested, a limit above", v1, "4:memory:/a/b\n2:cpu,cpuacct:/a\n0::/\n", map[string]string{
			"memory/a/b/memory.limit_in_bytes": "4294967296\n", "memory/a/memory.limit_in_bytes": "2147483648\n",
			"cpu,cpuacct/a/cpu.cfs_quota_us": "25000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
		}, capacity.Machine{CPUs: 0.25, Memory: 2 << 30}},
		{"v1, beside a limit that is not ours", v1, "4:memory:/a\n2:cpu,cpuacct:/\n", map[string]string{
			"memory/b/memory.limit_in_bytes": "1024\n",
		}, capacity.Machine{CPUs: cores, Memory: 8 << 30}},
		{"v1, a container that sees its own part", v1Container, "4:memory:/docker/abc/in\n2:cpu,cpuacct:/docker/abc\n", map[string]string{
			"memory/memory.limit_in_bytes": "3221225472\n", "memory/in/memory.limit_in_bytes": "1073741824\n", "cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
		}, capacity.Machine{CPUs: 0.5, Memory: 1 << 30}},
		{"v1, a container with a cgroup namespace", v1Container, "4:memory:/\n2:cpu,cpuacct:/\n", map[string]string{
			"memory/memory.limit_in_bytes": "3221225472\n",
		}, capacity.Machine{CPUs: cores, Memory: 3 << 30}},
		{"v2 without limits", v2, "0::/system.slice/x\n", map[string]string{
			"system.slice/x/memory.max": "max\n", "system.slice/x/cpu.max": "max 100000\n",
		}, capacity.Machine{CPUs: cores, Memory: 8 << 30}},
		{"v2, quota here and memory above", v2, "0::/system.slice/x\n", map[string]string{
			"system.slice/memory.high": "1073741824\n", "system.slice/memory.max": "2147483648\n", "system.slice/x/cpu.max": "75000 100000\n",
		}, capacity.Machine{CPUs: 0.75, Memory: 1 << 30}},
		{"v2, moved out of what the namespace shows", v2, "0::/../x\n", map[string]string{
			"memory.max": "1073741824\n", "cpu.max": "50000 100000\n",
		}, capacity.Machine{CPUs: 0.5, Memory: 1 << 30}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, "proc/meminfo", meminfo)
			put(t, root, "proc/self/mountinfo", tt.mounts)
			put(t, root, "proc/self/cgroup", tt.cgroup)
			for name, content := range tt.files {
				put(t, root, filepath.Join("sys/fs/cgroup", name), content)
			}
			got, err := capacity.Read(root)
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// The machine that runs the test has some of each.
func TestReadHere(t *testing.T) {
	got, err := capacity.Read("/")
	if err != nil || got.CPUs <= 0 || got.CPUs > float64(runtime.NumCPU()) || got.Memory < 1<<20 {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNoMemoryTotal(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/meminfo", "MemFree: 1 kB\n")
	if _, err := capacity.Read(root); err == nil {
		t.Fatal("read a machine without memory")
	}
}

func put(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
