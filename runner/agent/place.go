package agent

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// place makes what the command expects to find: its working directory, its
// resolvers, its secrets, and a report directory it may write to.
func place(x *wire.Exec, u *user) *wire.Refused {
	if x.Dir == "" {
		x.Dir = "/"
	}
	if err := os.MkdirAll(x.Dir, 0o755); err != nil {
		return refuse(126, "working directory "+x.Dir+": "+reason(err))
	}
	if x.Resolv != "" {
		if err := os.WriteFile("/etc/resolv.conf", []byte(x.Resolv), 0o644); err != nil {
			return refuse(126, "write /etc/resolv.conf: "+reason(err))
		}
	}
	if x.Hosts != "" {
		if err := add("/etc/hosts", x.Hosts); err != nil {
			return refuse(126, "write /etc/hosts: "+reason(err))
		}
	}
	if x.Out != "" {
		if err := unix.Chown(x.Out, int(u.uid), int(u.gid)); err != nil {
			return refuse(126, "hand "+x.Out+" to the test's user: "+err.Error())
		}
	}
	for _, s := range x.Secrets {
		if err := writeSecret(s, u); err != nil {
			return refuse(126, "secret "+s.Name+": "+reason(err))
		}
	}
	return nil
}

// add puts text at the end of a file.
func add(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// writeSecret leaves a file only its user may read, on a tmpfs.
func writeSecret(s wire.Secret, u *user) error {
	path := filepath.Join(wire.SecretsDir, s.Name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return err
	}
	defer drop(f)
	if err := f.Chown(int(u.uid), int(u.gid)); err != nil {
		return err
	}
	_, err = f.Write(s.Data)
	return err
}
