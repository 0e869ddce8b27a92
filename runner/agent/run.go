package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// run starts argv as execvp(3) would, and says in a sentence why it cannot.
func run(argv, env []string, attr *syscall.ProcAttr) (pid int, why *wire.Refused) {
	if len(argv) == 0 || argv[0] == "" {
		return 0, refuse(127, "there is no command: neither the test nor the image names one")
	}
	if strings.Contains(argv[0], "/") {
		path := argv[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(attr.Dir, path)
		}
		pid, err := syscall.ForkExec(path, argv, attr)
		if err != nil {
			return 0, explain(argv[0], path, attr, err)
		}
		return pid, nil
	}
	search, _ := lookupEnv(env, "PATH")
	var denied string
	for dir := range strings.SplitSeq(search, ":") {
		path := filepath.Join(attr.Dir, argv[0])
		if filepath.IsAbs(dir) {
			path = filepath.Join(dir, argv[0])
		} else if dir != "" {
			path = filepath.Join(attr.Dir, dir, argv[0])
		}
		if !isFile(path) {
			continue
		}
		pid, err := syscall.ForkExec(path, argv, attr)
		if err == nil {
			return pid, nil
		}
		if !errors.Is(err, unix.EACCES) {
			return 0, explain(argv[0], path, attr, err)
		}
		denied = path
	}
	if denied != "" {
		return 0, explain(argv[0], denied, attr, unix.EACCES)
	}
	return 0, refuse(127, argv[0]+" is not in the image: none of "+search+" has it")
}

func isFile(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// explain turns exec's error number into what the user can act on.
func explain(name, path string, attr *syscall.ProcAttr, err error) *wire.Refused {
	var st unix.Stat_t
	exists := unix.Stat(path, &st) == nil
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		if !exists {
			return refuse(127, name+" is not in the image")
		}
		if i := interpreter(path); i != "" {
			return refuse(127, name+" needs "+i+", which is not in the image")
		}
		return refuse(127, name+" could not be found at the moment it was started")
	case errors.Is(err, unix.EACCES):
		if exists && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return refuse(126, name+" is a directory")
		}
		if exists && st.Mode&0o111 == 0 {
			return refuse(126, name+" is not executable; chmod +x it in the image")
		}
		return refuse(126, "the test's user may not run "+name+" in "+attr.Dir+" (permission denied)")
	case errors.Is(err, unix.ENOEXEC):
		return refuse(126, name+" "+format(path))
	case errors.Is(err, unix.E2BIG):
		return refuse(126, "the command line and environment are larger than Linux allows")
	}
	return refuse(126, name+": "+err.Error())
}

// interpreter is what a script's first line or a dynamic program asks for.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer drop(f)
	var head [256]byte
	n, _ := f.Read(head[:])
	if line, ok := strings.CutPrefix(string(head[:n]), "#!"); ok {
		line, _, _ = strings.Cut(line, "\n")
		if words := strings.Fields(line); len(words) > 0 {
			return strings.TrimSuffix(words[0], "\r")
		}
		return ""
	}
	return loader(f)
}

// refuse is a start that failed through no fault of slipway's.
func refuse(exit int32, why string) *wire.Refused {
	return &wire.Refused{Exit: exit, Reason: why}
}

// reason is the bare error number's text: paths are named by the caller.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}
