package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

// dialDirectory runs git's own git-upload-pack on a repository of this machine.
func dialDirectory(ctx context.Context, endpoint *transport.Endpoint, limit int64) (*session, error) {
	if _, err := os.Stat(endpoint.Path); errors.Is(err, fs.ErrNotExist) { // git says something else of it
		return nil, transport.ErrRepositoryNotFound
	}
	cmd := exec.CommandContext(ctx, "git-upload-pack", "--", endpoint.Path)
	if _, err := exec.LookPath(cmd.Path); err != nil {
		cmd = exec.CommandContext(ctx, "git", "upload-pack", "--", endpoint.Path)
	}
	cmd.WaitDelay = time.Second
	said := &lastWords{}
	cmd.Stderr = said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; install git: slipway reads directories through its git-upload-pack", err)
	}
	s, err := stream(in, out, limit, func() error {
		_, _ = io.Copy(io.Discard, out) // what is left after an error of ours
		return cmd.Wait()
	})
	if err != nil {
		_ = in.Close()
		_ = cmd.Wait()
		return nil, said.add(err)
	}
	return s, nil
}

// lastWords keeps the beginning of what the other side says about an error.
type lastWords struct{ text bytes.Buffer }

func (l *lastWords) Write(p []byte) (int, error) {
	l.text.Write(p[:min(len(p), 4096-l.text.Len())])
	return len(p), nil
}

func (l *lastWords) add(err error) error {
	if text := strings.TrimSpace(l.text.String()); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// dialSSH runs git-upload-pack on the host of an address. The host must be the
// one that the file of known hosts says.
func (r Remote) dialSSH(ctx context.Context, endpoint *transport.Endpoint, limit int64) (*session, error) {
	conf, at, err := r.sshConfig(endpoint)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends whatever waits for the other side
	hangUp := func() error {
		stop()
		_ = conn.Close() // it may be closed already
		return nil
	}
	s, err := sshStream(conn, at, conf, endpoint.Path, limit, hangUp)
	if err != nil {
		return nil, errors.Join(err, hangUp())
	}
	return s, nil
}

func sshStream(conn net.Conn, at string, conf *ssh.ClientConfig, path string, limit int64, hangUp func() error) (*session, error) {
	c, channels, requests, err := ssh.NewClientConn(conn, at, conf)
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	running, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	said := &lastWords{}
	running.Stderr = said
	in, err := running.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := running.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := running.Start("git-upload-pack " + quote(path)); err != nil {
		return nil, err
	}
	s, err := stream(in, out, limit, func() error {
		_ = client.Close()
		err := hangUp()
		_ = client.Wait() // until what it reads with has ended
		return err
	})
	if err != nil {
		_ = client.Close()
		_ = running.Wait()
		return nil, said.add(err)
	}
	return s, nil
}

// quote is how a path is handed to the shell at the other end, which may be git-shell(1).
func quote(path string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'"
}

func (r Remote) sshConfig(endpoint *transport.Endpoint) (*ssh.ClientConfig, string, error) {
	if r.KnownHosts == "" || len(r.SSHKey) == 0 {
		return nil, "", errors.New("ssh needs a private key and a file of known hosts; give both with the credentials of the repository")
	}
	key, err := ssh.ParsePrivateKey(r.SSHKey)
	if err != nil {
		return nil, "", fmt.Errorf("read the private key: %w; give one without a passphrase, as ssh-keygen -t ed25519 -N '' makes it", err)
	}
	hosts, err := gitssh.NewKnownHostsDb(r.KnownHosts)
	if err != nil {
		return nil, "", fmt.Errorf("read the known hosts %s: %w; make the file with ssh-keyscan %s", r.KnownHosts, err, endpoint.Host)
	}
	port := endpoint.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	at := net.JoinHostPort(strings.Trim(endpoint.Host, "[]"), strconv.Itoa(port))
	user := endpoint.User
	if user == "" {
		user = gitssh.DefaultUsername
	}
	check := hosts.HostKeyCallback()
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyAlgorithms: hosts.HostKeyAlgorithms(at), Timeout: 30 * time.Second,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			if err := check(host, remote, key); err != nil {
				return fmt.Errorf("%w: it showed %s; if that is its key, add it to %s", err, ssh.FingerprintSHA256(key), r.KnownHosts)
			}
			return nil
		},
	}, at, nil
}
