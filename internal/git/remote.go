package git

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Remote is a repository to fetch from, and how it is reached.
type Remote struct {
	// URL is https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, or what else
	// the policy lets pass. It holds no password: that is a credential.
	URL string
	// User and Token are for http and https. Forges look at the token alone, so
	// User may be empty.
	User, Token string
	// SSHKey is a private key without a passphrase, in a format that ssh-keygen(1)
	// writes, and KnownHosts a file as sshd(8) describes it. Both are needed for ssh.
	SSHKey     []byte
	KnownHosts string
	// CA are certificates in PEM that https is checked with, besides the system's.
	CA []byte
	// Policy is what the address must keep to.
	Policy Policy
}

// Policy says which addresses a server may fetch from. The zero value lets https
// and ssh to any host pass, and nothing else.
type Policy struct {
	File  bool     // directories of this machine, as a path or file://
	Plain bool     // http, which shows tokens and content to the network
	Hosts []string // no other hosts than these; empty: any
}

// ErrAddress says that a policy does not let an address pass.
var ErrAddress = errors.New("the address is not allowed")

// Check says whether the policy lets an address pass. It reaches nothing.
func (p Policy) Check(address string) error {
	_, err := p.endpoint(address)
	return err
}

func (p Policy) endpoint(address string) (*transport.Endpoint, error) {
	refuse := func(format string, args ...any) (*transport.Endpoint, error) {
		return nil, fmt.Errorf("%s: %w: %s", withoutCredentials(address), ErrAddress, fmt.Sprintf(format, args...))
	}
	if strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) || strings.HasPrefix(address, "-") {
		return refuse("it has characters that no address has; write https://HOST/PATH or ssh://USER@HOST/PATH")
	}
	if dir, ok := strings.CutPrefix(address, "file://"); ok {
		address = dir
	}
	e, err := transport.NewEndpoint(address)
	if err != nil {
		return refuse("write https://HOST/PATH or ssh://USER@HOST/PATH") // the cause may hold a password
	}
	switch e.Protocol {
	case "file":
		if !p.File {
			return refuse("it is a directory of the server, which its policy does not allow; push it to a forge, or allow it in the server's configuration")
		}
		if e.Path, err = filepath.Abs(e.Path); err != nil {
			return nil, err
		}
		return e, nil
	case "http":
		if !p.Plain {
			return refuse("http shows tokens and content to the network; write https")
		}
	case "https", "ssh":
	default:
		return refuse("%s is not a way that slipway goes; write https or ssh", e.Protocol)
	}
	return e, p.checkParts(address, e, refuse)
}

func (p Policy) checkParts(address string, e *transport.Endpoint, refuse func(string, ...any) (*transport.Endpoint, error)) (err error) {
	u, _ := url.Parse(address) // nil for USER@HOST:PATH
	switch {
	case e.Password != "" || e.User != "" && e.Protocol != "ssh":
		_, err = refuse("it holds a user or a password; give them as credentials")
	case u != nil && (u.RawQuery != "" || u.Fragment != ""):
		_, err = refuse("it holds a query; leave out what follows the path")
	case e.Host == "" || strings.HasPrefix(e.Host, "-") || strings.HasPrefix(e.User, "-"):
		_, err = refuse("it names no host; write https://HOST/PATH")
	case e.Path == "" || e.Path == "/" || strings.HasPrefix(e.Path, "-"):
		_, err = refuse("it names no repository; write https://HOST/PATH")
	case slices.Contains(strings.Split(e.Path, "/"), ".."):
		_, err = refuse("its path goes up; write the path that it leads to, %s", path.Clean(e.Path))
	case len(p.Hosts) > 0 && !slices.ContainsFunc(p.Hosts, func(h string) bool { return strings.EqualFold(h, e.Host) }):
		_, err = refuse("its host is none of %s; add it to the server's list of hosts", strings.Join(p.Hosts, ", "))
	}
	return err
}

// CheckRef says whether name is the whole name of a ref, such as
// refs/heads/main, by the rules of git-check-ref-format(1).
func CheckRef(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("the ref %q: %s; write a whole name such as refs/heads/main", name, why)
	}
	switch {
	case !strings.HasPrefix(name, "refs/"):
		return bad("it does not begin with refs/")
	case len(name) > 1024:
		return bad("it is too long")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }):
		return bad("it has a character that no ref has")
	case strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.HasSuffix(name, "."):
		return bad("it has dots or braces where no ref has them")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return bad("one of its parts is empty, begins with a dot or ends in .lock")
		}
	}
	return nil
}
