package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// dockerRegistry starts a registry on loopback, Docker's own as Debian packages
// it, and puts its address in $REGISTRY. It ends with the story.
func dockerRegistry(ts *testscript.TestScript, _ bool, _ []string) {
	address, err := freeAddress()
	ts.Check(err)
	config := ts.MkAbs("registry.yml")
	ts.Check(os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(filepath.Dir(config), "registry"), address), 0o600))
	cmd := exec.Command("docker-registry", "serve", config)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ts.Check(answers("http://" + address + "/v2/"))
	ts.Setenv("REGISTRY", address)
}

// serveImages serves the images of another root as a registry, with further
// arguments: serve ROOT [ARGUMENTS]. Its address is in $REGISTRY.
func serveImages(ts *testscript.TestScript, _ bool, args []string) {
	address, err := freeAddress()
	ts.Check(err)
	program, err := os.Executable()
	ts.Check(err)
	cmd := exec.Command(program, append([]string{"--root", ts.MkAbs(args[0]), "registry", "serve", "--listen", address}, args[1:]...)...)
	cmd.Args[0] = "slipway" // what testscript makes of the test's own program
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		ts.Check(cmd.Wait())
	})
	ts.Check(answers("http://" + address + "/v2/"))
	ts.Setenv("REGISTRY", address)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func answers(url string) error {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var resp *http.Response
		if resp, err = http.Get(url); err == nil {
			return resp.Body.Close()
		}
	}
	return errors.Join(errors.New("the registry does not answer"), err)
}
