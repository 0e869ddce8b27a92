package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Below these a few parallel sandboxes with services run into them.
const (
	fewInstances = 64
	fewWatches   = 8192
	fewFiles     = 4096
)

func checkLimits(in Input) []Finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return []Finding{warn("open files", err.Error(), "ulimit -n 65536"), checkInotify(in)}
	}
	return []Finding{checkFiles(l.Max), checkInotify(in)}
}

// checkFiles looks at the hard limit: Go raises the soft one by itself.
func checkFiles(most uint64) Finding {
	const name = "open files"
	if most < fewFiles {
		return warn(name, fmt.Sprintf("at most %d for slipway and its sandboxes", most), "ulimit -Hn 65536 before slipway; for a systemd service LimitNOFILE=65536")
	}
	return ok(name, fmt.Sprintf("up to %d", most))
}

func checkInotify(in Input) Finding {
	const name = "inotify"
	instances, err1 := number(in.proc("sys/fs/inotify/max_user_instances"))
	watches, err2 := number(in.proc("sys/fs/inotify/max_user_watches"))
	switch {
	case err1 != nil || err2 != nil:
		return warn(name, "not available; programs under test that watch files will fail", "use a kernel with CONFIG_INOTIFY_USER")
	case instances < fewInstances:
		return warn(name, fmt.Sprintf("%d instances for each user", instances), "sysctl -w fs.inotify.max_user_instances=1024")
	case watches < fewWatches:
		return warn(name, fmt.Sprintf("%d watches for each user", watches), "sysctl -w fs.inotify.max_user_watches=524288")
	}
	return ok(name, fmt.Sprintf("%d instances, %d watches for each user", instances, watches))
}

func number(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// checkBinfmt only informs: foreign platforms are built by whoever asks for them.
func checkBinfmt(in Input) Finding {
	const name = "foreign platforms"
	dir := in.proc("sys/fs/binfmt_misc")
	entries, _ := os.ReadDir(dir) // not mounted: no handlers
	var have []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "qemu-") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && strings.HasPrefix(string(b), "enabled") {
			have = append(have, strings.TrimPrefix(e.Name(), "qemu-"))
		}
	}
	if len(have) == 0 {
		return ok(name, "none beside linux/"+runtime.GOARCH+"; `apt-get install qemu-user-static` adds others")
	}
	return ok(name, "emulated: "+strings.Join(have, ", "))
}
