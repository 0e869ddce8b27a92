package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Spec says what is to run in one project, whole: what is not in it ends. Its
// JSON is what the supervisor keeps on disk and starts from after a reboot.
type Spec struct {
	Project    string      `json:"project"`             // name of the environment, or of the development set
	Of         string      `json:"of,omitempty"`        // for people: the promotion, or the directory, that it comes from
	Containers []Container `json:"containers"`          // names are unique
	Promotion  string      `json:"promotion,omitempty"` // ID of the promotion that delivered it
}

// Grounds is that of a spec which must be there before its containers can start:
// images and volumes, without configuration and secrets.
func (s Spec) Grounds() Spec {
	out := Spec{Project: s.Project}
	for _, c := range s.Containers {
		out.Containers = append(out.Containers, Container{Name: c.Name, Repository: c.Repository, Digest: c.Digest, Mounts: c.Mounts})
	}
	return out
}

// Container is one of them. Its host name in the project is its name.
type Container struct {
	Name       string                     `json:"name"`
	Repository string                     `json:"repository,omitempty"` // for people; the digest decides
	Digest     digest.Digest              `json:"digest"`
	Service    pipeline.Service           `json:"service"`           // command, environment, user, healthcheck, depends_on, limits: Compose's meaning
	Secrets    map[string]pipeline.Secret `json:"secrets,omitempty"` // variable → where its value is found at each start
	Sealed     map[string][]byte          `json:"sealed,omitempty"`  // age-encrypted files that secrets name, still encrypted
	Files      map[string][]byte          `json:"files,omitempty"`   // path in the container → content, read-only
	Mounts     []Mount                    `json:"mounts,omitempty"`
	Ports      []Port                     `json:"ports,omitempty"`
	Restart    Restart                    `json:"restart,omitempty"`
	Internet   bool                       `json:"internet,omitempty"` // may reach out; never the host
	StopGrace  time.Duration              `json:"stop_grace,omitempty"`
	Drain      time.Duration              `json:"drain,omitempty"` // how long open connections may go on after a switch
}

// Mount is a directory of the host, or a volume of the project that outlives its containers.
type Mount struct {
	Volume   string `json:"volume,omitempty"` // name of a volume; its first container finds it empty
	Source   string `json:"source,omitempty"` // or an absolute path on the host
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Port publishes a port of a container on an address of the host.
type Port struct {
	Host      string `json:"host"`      // "127.0.0.1:8080"
	Container uint16 `json:"container"` // TCP
}

// Restart says when a container that has ended is started again.
type Restart string

// The restart policies, in Compose's words; the zero value is RestartAlways.
const (
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure"
	RestartNo        Restart = "no"
)

// The times a container gets where its spec names none.
const (
	defaultGrace = 10 * time.Second
	defaultDrain = 10 * time.Second
)

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Check refuses what could not be run, before anything is changed. It does not
// look at the machine: a port that somebody else holds is met at Apply.
func (s *Spec) Check() error {
	if !projectName.MatchString(s.Project) {
		return fmt.Errorf("project %q: a name is small letters, digits, dots, dashes and underscores, 63 at most", s.Project)
	}
	seen, doors := map[string]bool{}, map[string]string{}
	for i := range s.Containers {
		c := &s.Containers[i]
		if seen[c.Name] {
			return fmt.Errorf("%s: the container %s is there twice", s.Project, c.Name)
		}
		seen[c.Name] = true
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: container %s: %w", s.Project, c.Name, err)
		}
		for _, p := range c.Ports {
			if other, taken := doors[p.Host]; taken {
				return fmt.Errorf("%s: both %s and %s publish %s; give one of them another port", s.Project, other, c.Name, p.Host)
			}
			doors[p.Host] = c.Name
		}
	}
	for _, c := range s.Containers {
		for name := range c.Service.DependsOn {
			if !seen[name] {
				return fmt.Errorf("%s: %s depends on %s, which is not part of it", s.Project, c.Name, name)
			}
		}
	}
	_, err := s.order()
	return err
}

func (c *Container) check() error {
	if !projectName.MatchString(c.Name) {
		return errors.New("a name is small letters, digits, dots, dashes and underscores")
	}
	if err := c.Digest.Validate(); err != nil {
		return fmt.Errorf("%q is not a digest (%w)", c.Digest, err)
	}
	for _, m := range c.Mounts {
		switch {
		case !path.IsAbs(m.Target):
			return fmt.Errorf("mount at %q: give an absolute path", m.Target)
		case m.Volume == "" && !filepath.IsAbs(m.Source):
			return fmt.Errorf("mount %q: give a volume, or an absolute path on this machine", m.Source)
		case m.Volume != "" && !projectName.MatchString(m.Volume):
			return fmt.Errorf("volume %q: a name is small letters, digits, dots, dashes and underscores", m.Volume)
		}
	}
	for target := range c.Files {
		if !path.IsAbs(target) || path.Clean(target) != target {
			return fmt.Errorf("file %q: give an absolute path", target)
		}
	}
	if !slices.Contains([]Restart{"", RestartAlways, RestartOnFailure, RestartNo}, c.Restart) {
		return fmt.Errorf("restart: %q is none of always, on-failure, no", c.Restart)
	}
	return nil
}

// order gives the containers so that each comes after those it depends on.
func (s *Spec) order() ([]*Container, error) {
	byName := map[string]*Container{}
	for i := range s.Containers {
		byName[s.Containers[i].Name] = &s.Containers[i]
	}
	var sorted []*Container
	state := map[string]int{} // 1: on the way, 2: placed
	var place func(c *Container, by []string) error
	place = func(c *Container, by []string) error {
		switch state[c.Name] {
		case 2:
			return nil
		case 1:
			return fmt.Errorf("%s: containers wait for each other: %s; take one depends_on out", s.Project, strings.Join(append(by, c.Name), " → "))
		}
		state[c.Name] = 1
		for _, name := range slices.Sorted(maps.Keys(c.Service.DependsOn)) {
			if err := place(byName[name], append(by, c.Name)); err != nil {
				return err
			}
		}
		state[c.Name] = 2
		sorted = append(sorted, c)
		return nil
	}
	for i := range s.Containers {
		if err := place(&s.Containers[i], nil); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

// published are the ports of all containers, by the container's name and the
// host's address.
func (s *Spec) published() map[string]Port {
	all := map[string]Port{}
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			all[c.Name+" "+p.Host] = p
		}
	}
	return all
}

// same reports whether a running container would be no other one if it were
// started from c. Where it is published is no part of it.
func (c *Container) same(d *Container) bool {
	a, b := *c, *d
	a.Ports, b.Ports = nil, nil
	a.Repository, b.Repository = "", ""
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// alone reports whether the next container of this name can start only when the
// one before has ended: both would write to the same files.
func (c *Container) alone() bool {
	return slices.ContainsFunc(c.Mounts, func(m Mount) bool { return !m.ReadOnly })
}

// ParsePort reads a port in Compose's short form: "8080:80", "127.0.0.1:8080:80",
// "[::1]:8080:80". Without an address it is published on all of the machine's, as there.
func ParsePort(text string) (Port, error) {
	bad := func(why string) (Port, error) {
		return Port{}, fmt.Errorf("port %q: %s; write HOST:CONTAINER or ADDRESS:HOST:CONTAINER, such as 127.0.0.1:8080:80", text, why)
	}
	rest, protocol, given := strings.Cut(text, "/")
	if given && protocol != "tcp" {
		return bad("only TCP ports are published")
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return bad("it names no port of this machine")
	}
	inside, err := strconv.ParseUint(rest[i+1:], 10, 16)
	if err != nil || inside == 0 {
		return bad("its last part is no port")
	}
	host := rest[:i]
	if !strings.Contains(host, ":") {
		host = ":" + host
	}
	address, outside, err := net.SplitHostPort(host)
	if err != nil {
		return bad("its address is none")
	}
	if n, err := strconv.ParseUint(outside, 10, 16); err != nil || n == 0 {
		return bad("its first part is no port")
	}
	if address != "" && net.ParseIP(address) == nil {
		return bad(address + " is no address")
	}
	return Port{Host: net.JoinHostPort(address, outside), Container: uint16(inside)}, nil
}
