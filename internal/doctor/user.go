package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func checkUser(in Input) Finding {
	if in.UID != 0 {
		return fail("root", fmt.Sprintf("running as user %d; builds and sandboxes need root (running without comes later)", in.UID), "sudo slipway doctor")
	}
	return ok("root", "running as root")
}

// checkKernel only explains: nothing is decided by the version.
func checkKernel(in Input) Finding {
	b, err := os.ReadFile(in.proc("sys/kernel/osrelease"))
	if err != nil {
		return fail("kernel", err.Error(), "mount -t proc proc /proc")
	}
	return ok("kernel", "Linux "+strings.TrimSpace(string(b))+", tried feature by feature below")
}

// capability names a bit that root may lack in a container.
type capability struct {
	bit  int
	name string
	why  string
}

func capabilities() []capability {
	return []capability{
		{unix.CAP_SYS_ADMIN, "SYS_ADMIN", "mounts and namespaces"},
		{unix.CAP_NET_ADMIN, "NET_ADMIN", "networks of sandboxes"},
		{unix.CAP_SETUID, "SETUID", "users of sandboxes"},
		{unix.CAP_SETGID, "SETGID", "groups of sandboxes"},
		{unix.CAP_SETPCAP, "SETPCAP", "dropping capabilities"},
		{unix.CAP_SETFCAP, "SETFCAP", "mapping root into user namespaces"},
		{unix.CAP_CHOWN, "CHOWN", "owners of files in layers"},
		{unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE", "reading every file of an image"},
		{unix.CAP_FOWNER, "FOWNER", "modes of files in layers"},
		{unix.CAP_FSETID, "FSETID", "set-user-id bits in layers"},
		{unix.CAP_MKNOD, "MKNOD", "deletions in layers"},
		{unix.CAP_SYS_CHROOT, "SYS_CHROOT", "unpacking layers"},
		{unix.CAP_KILL, "KILL", "ending sandboxes"},
	}
}

func checkCapabilities(in Input) []Finding {
	if in.UID != 0 {
		return nil // told already
	}
	const name = "capabilities"
	b, err := os.ReadFile(in.proc("self/status"))
	if err != nil {
		return []Finding{fail(name, err.Error(), "mount -t proc proc /proc")}
	}
	have, err := strconv.ParseUint(field(string(b), "CapEff:"), 16, 64)
	if err != nil {
		return []Finding{warn(name, "CapEff in "+in.proc("self/status")+" is not readable", "run slipway outside this container")}
	}
	var missing, flags []string
	for _, c := range capabilities() {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name+" ("+c.why+")")
			flags = append(flags, "--cap-add "+c.name)
		}
	}
	if len(missing) > 0 {
		return []Finding{fail(name, "root here lacks "+strings.Join(missing, ", "), "start the container slipway runs in with --privileged, or with "+strings.Join(flags, " "))}
	}
	return []Finding{ok(name, "root has all that are needed")}
}

// field is the rest of the line of s that starts with key.
func field(s, key string) string {
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
