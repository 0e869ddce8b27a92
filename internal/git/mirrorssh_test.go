package git_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"slipway/internal/git"
)

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// ssh serves the repository with a server of ssh that runs what it is told by the shell, as sshd does.
func (o *origin) ssh() git.Remote {
	o.t.Helper()
	host, _ := newKey(o.t)
	client, private := newKey(o.t)
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, net.ErrClosed
		}
		return &ssh.Permissions{}, nil
	}}
	conf.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	var group sync.WaitGroup
	o.t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { serveSSH(conn, conf) })
		}
	})
	known := filepath.Join(o.t.TempDir(), "known_hosts")
	write(o.t, known, knownhosts.Line([]string{listener.Addr().String()}, host.PublicKey())+"\n")
	return git.Remote{URL: "ssh://git@" + listener.Addr().String() + o.dir, SSHKey: private, KnownHosts: known}
}

func serveSSH(conn net.Conn, conf *ssh.ServerConfig) {
	defer func() { _ = conn.Close() }()
	_, channels, requests, err := ssh.NewServerConn(conn, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		for q := range requests {
			if q.Type != "exec" {
				_ = q.Reply(false, nil)
				continue
			}
			var command struct{ Text string }
			_ = q.Reply(ssh.Unmarshal(q.Payload, &command) == nil, nil)
			cmd := exec.Command("sh", "-c", command.Text)
			cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
			in, _ := cmd.StdinPipe()
			go func() { _, _ = io.Copy(in, channel); _ = in.Close() }() // ends with the channel
			_ = cmd.Run()
			_ = channel.Close()
		}
	}
}

func TestSSHHosts(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1")
	good, other := o.ssh(), newOrigin(t).ssh()
	fetch := func(r git.Remote) error {
		_, err := newMirror(t).Fetch(t.Context(), r, onMain, "")
		return err
	}
	if err := fetch(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *git.Remote){
		"unknown host": func(r *git.Remote) { r.KnownHosts = other.KnownHosts },
		"other key": func(r *git.Remote) {
			host, _ := newKey(t)
			r.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
			at, _, _ := strings.Cut(strings.TrimPrefix(r.URL, "ssh://git@"), "/")
			write(t, r.KnownHosts, knownhosts.Line([]string{at}, host.PublicKey())+"\n")
		},
		"no known hosts": func(r *git.Remote) { r.KnownHosts = "" },
		"no key":         func(r *git.Remote) { r.SSHKey = nil },
		"wrong key":      func(r *git.Remote) { r.SSHKey = other.SSHKey },
		"no file":        func(r *git.Remote) { r.KnownHosts += ".nothing" },
	} {
		r := good
		change(&r)
		if err := fetch(r); err == nil {
			t.Errorf("%s: fetched", name)
		} else {
			t.Log(name, err)
		}
	}
	// A path that a shell would take apart.
	marker := filepath.Join(t.TempDir(), "marker")
	r := good
	r.URL += "'$(touch${IFS}" + marker + ")"
	if err := fetch(r); err == nil {
		t.Error("fetched from nowhere")
	}
	if _, err := exec.Command("test", "-e", marker).Output(); err == nil {
		t.Error("a part of the path was run")
	}
}
