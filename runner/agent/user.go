package agent

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"slipway/runner/wire"
)

// user is whom the command runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

func (u *user) credential() *syscall.Credential {
	return &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}
}

// lookup reads an image's "user[:group]" against the image's own /etc/passwd
// and /etc/group, with Docker's rules: a number need not be listed, a name
// must; supplementary groups come from /etc/group unless a group is named.
func lookup(spec string) (*user, *wire.Refused) {
	name, group, grouped := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	u := &user{home: "/"}
	number, numeric := parseID(name)
	listed := name // the name that /etc/group lists
	found := false
	each("/etc/passwd", 7, func(f []string) bool {
		id, ok := parseID(f[2])
		if !ok || (f[0] != name && (!numeric || id != number)) {
			return false
		}
		u.uid, listed, found = id, f[0], true
		u.gid, _ = parseID(f[3])
		if f[5] != "" {
			u.home = f[5]
		}
		return true
	})
	switch {
	case found:
	case numeric:
		u.uid = number
	case name == "root":
	default:
		return nil, refuse(126, "user "+strconv.Quote(name)+" is not in the image's /etc/passwd; name a user the image has, or a number")
	}
	if u.uid == 0 && u.home == "/" {
		u.home = "/root"
	}
	if why := u.join(group, grouped, listed); why != nil {
		return nil, why
	}
	if u.uid > maxID || u.gid > maxID {
		return nil, refuse(126, "user "+spec+" is beyond 65535, the last id of a sandbox; use a smaller one")
	}
	// The primary group is listed too: else a set-group-id program could drop
	// it, and with it what a mode refuses to that group (CVE-2022-36109).
	u.groups = append([]uint32{u.gid}, u.groups...)
	return u, nil
}

// maxID is the last id a sandbox's user namespace maps.
const maxID = 65535

// join sets the groups: the one that is named, or those that list the user.
func (u *user) join(group string, grouped bool, listed string) *wire.Refused {
	number, numeric := parseID(group)
	found := false
	each("/etc/group", 4, func(f []string) bool {
		id, ok := parseID(f[2])
		if !ok {
			return false
		}
		if grouped && group != "" {
			if f[0] != group && (!numeric || id != number) {
				return false
			}
			u.gid, found = id, true
			return true
		}
		for m := range strings.SplitSeq(f[3], ",") {
			if m == listed && id <= maxID {
				u.groups = append(u.groups, id)
			}
		}
		return false
	})
	if !grouped || group == "" || found {
		return nil
	}
	if !numeric {
		return refuse(126, "group "+strconv.Quote(group)+" is not in the image's /etc/group; name a group the image has, or a number")
	}
	u.gid = number
	return nil
}

// each calls f with the fields of every line, until it is satisfied. A missing
// file has no lines: many images have neither.
func each(file string, fields int, f func([]string) bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if got := strings.Split(strings.TrimSpace(line), ":"); len(got) >= fields && f(got) {
			return
		}
	}
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}
