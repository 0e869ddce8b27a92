package wire

// SetupFD is the agent's end of a socket to the helper, while the sandbox is
// made: it reads one Setup, then writes SetupDone, or why it could not, and
// closes it.
const SetupFD = 6

// SetupDone is the whole answer to a Setup that was carried out.
const SetupDone = "\x00"

// Setup tells the agent what to do in the namespaces it was started in before
// it listens to anyone.
type Setup struct {
	Root     string // mount point of what becomes /
	Hostname string
	Masked   []string // paths that say things about the host: hidden where they exist
	Unified  bool     // show the sandbox's own cgroup (version 2)
}

func (*Setup) kind() byte { return KindSetup }

func (s *Setup) code(c *coder) {
	c.string(&s.Root)
	c.string(&s.Hostname)
	c.strings(&s.Masked)
	c.bool(&s.Unified)
}

// Capabilities that root of a sandbox has, with their numbers (capability.h):
// Docker's defaults without NET_RAW (raw sockets), MKNOD (device files) and
// AUDIT_WRITE. All of them count inside the sandbox's user namespace only.
func Capabilities() map[string]uint {
	return map[string]uint{
		"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7,
		"CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10, "CAP_SYS_CHROOT": 18, "CAP_SETFCAP": 31,
	}
}
