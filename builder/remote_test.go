package builder

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	tlscreds "google.golang.org/grpc/credentials"

	"slipway/internal/need"
	"slipway/pipeline"
)

// The remote is BuildKit's own control server, as buildkitd has it, in front of
// a second store: the build below cannot tell it from a buildkitd elsewhere.
func serveRemote(t *testing.T, l net.Listener, opts ...grpc.ServerOption) {
	t.Helper()
	remote := open(t, testOptions(t))
	srv := newControlServer(opts...)
	remote.engine.controller.Register(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() { srv.Stop(); <-done })
}

func TestRemoteUnix(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "buildkitd.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	serveRemote(t, l)
	testRemote(t, Remote{Address: "unix://" + sock})
}

func TestRemoteTLS(t *testing.T) {
	dir := t.TempDir()
	writeCerts(t, dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveRemote(t, l, grpc.Creds(tlscreds.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))
	good := Remote{
		Address: "tcp://" + l.Addr().String(), CA: filepath.Join(dir, "ca.pem"), ServerName: "builder.example",
		Cert: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client.key"),
	}
	testRemote(t, good)

	for name, change := range map[string]func(*Remote){
		"no client certificate":  func(r *Remote) { r.Cert, r.Key = "", "" },
		"another server's name":  func(r *Remote) { r.ServerName = "other.example" },
		"nobody at that address": func(r *Remote) { r.Address = "tcp://127.0.0.1:1" },
	} {
		t.Run(name, func(t *testing.T) {
			o, bad := testOptions(t), good
			change(&bad)
			o.Remote = &bad
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			b, err := Open(ctx, o)
			if err == nil {
				_ = b.Close()
				t.Fatal("it connected")
			}
			t.Log(err)
		})
	}
}

// TestRemoteBuildkitd runs where a real buildkitd is installed.
func TestRemoteBuildkitd(t *testing.T) {
	runc := runcPath(t)
	daemon := need.Tool(t, "buildkitd")
	root := testRoot(t)
	sock := filepath.Join(root, "buildkitd.sock")
	config := filepath.Join(root, "buildkitd.toml")
	if err := os.WriteFile(config, []byte("[worker.oci]\n  enabled = true\n[worker.containerd]\n  enabled = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--config", config, "--root", filepath.Join(root, "state"), "--addr", "unix://"+sock,
		"--oci-worker-binary", runc, "--oci-worker-snapshotter", "overlayfs", "--oci-worker-net", "host")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("buildkitd: %s", said.Bytes())
		}
	})
	waitFor(t, "buildkitd listens", func() bool {
		conn, err := net.Dial("unix", sock)
		return err == nil && conn.Close() == nil
	})
	testRemote(t, Remote{Address: "unix://" + sock})
}

// testRemote builds on the remote what is also built here, from a base that
// only this side has, and compares.
func testRemote(t *testing.T, r Remote) {
	t.Helper()
	// A step here finds SOURCE_DATE_EPOCH in its environment; on another
	// buildkitd it has to ask for it.
	text := strings.Replace(everyLayer, "FROM base\nCOPY", "FROM base\nARG SOURCE_DATE_EPOCH\nCOPY", 1)
	files := map[string]string{"Dockerfile": text, "a.txt": "a", "sub/b.txt": "b", "sub/deep/c.txt": "c"}
	dir := project(t, files)
	o := testOptions(t)
	o.Remote = &r
	far := open(t, o)
	importBusybox(t, far, "busybox:1")
	there := build(t, far, Request{Dir: dir})
	if got := fileIn(t, far, there.Image, "root/n"); got != "new\n" {
		t.Errorf("/root/n holds %q", got)
	}
	if again := build(t, far, Request{Dir: dir}); !again.Cached || again.Image.Descriptor.Digest != there.Image.Descriptor.Digest {
		t.Errorf("the second remote build: cached %v, %s after %s", again.Cached, again.Image.Descriptor.Digest, there.Image.Descriptor.Digest)
	}
	on := build(t, far, Request{
		Name: "on", Dir: project(t, map[string]string{"Dockerfile": "FROM base\nRUN cat /root/n > /copy\n"}),
		Bases: map[string]pipeline.Image{"base": there.Image},
		Build: pipeline.Build{AdditionalContexts: map[string]string{"base": "image:base"}},
	})
	if got := fileIn(t, far, on.Image, "copy"); got != "new\n" {
		t.Errorf("/copy holds %q", got)
	}
	here := build(t, fresh(t), Request{Dir: dir})
	if here.Image.Descriptor.Digest != there.Image.Descriptor.Digest {
		t.Errorf("the digests differ: %s here, %s there", here.Image.Descriptor.Digest, there.Image.Descriptor.Digest)
		compareLayers(t, here, there)
	}
	_, err := far.Build(context.Background(), Request{Name: "bad", Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN exit 4\n"})})
	var be *BuildError
	if !errors.As(err, &be) || be.ExitCode != 4 || be.Line != 2 {
		t.Errorf("a failing step on the remote: %v", err)
	}
}

func compareLayers(t *testing.T, a, b Output) {
	t.Helper()
	for i, d := range a.Config.RootFS.DiffIDs {
		if i < len(b.Config.RootFS.DiffIDs) && b.Config.RootFS.DiffIDs[i] != d {
			t.Logf("layer %d differs: %s", i+1, a.Config.History[i].CreatedBy)
		}
	}
}

// writeCerts makes a CA, a server's and a client's certificate for an hour.
func writeCerts(t *testing.T, dir string) {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := newKey(t)
	writeCert(t, filepath.Join(dir, "ca"), ca, ca, caKey, caKey)
	for i, name := range []string{"server", "client"} {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"builder.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		writeCert(t, filepath.Join(dir, name), c, ca, newKey(t), caKey)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func writeCert(t *testing.T, path string, c, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) {
	t.Helper()
	cert, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: cert}, ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path+suffix, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
