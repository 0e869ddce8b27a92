package examples

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/need"
)

// container is what `slipway ps --json` says of one, as far as it is checked here.
type container struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	PID    int    `json:"pid"`
}

// witness holds what slipway says of an environment's container against what
// another tool unpacks from that digest: every file of it is in the container,
// the same. It gives the digest.
func (r root) witness(env, name string) string {
	r.t.Helper()
	need.Tool(r.t, "umoci")
	code, stdout, _ := r.slipway("ps", "--env", env, "--json")
	var projects []struct {
		Containers []container `json:"containers"`
	}
	if err := json.Unmarshal([]byte(stdout), &projects); code != 0 || err != nil || len(projects) != 1 {
		r.t.Fatalf("ps --env %s: exit code %d, %v", env, code, err)
	}
	for _, c := range projects[0].Containers {
		if c.Name != name {
			continue
		}
		tree := r.unpacked(name + "@" + c.Digest)
		n, differ := differences(r.t, tree, fmt.Sprintf("/proc/%d/root", c.PID))
		if n < 100 || len(differ) > 0 {
			r.t.Errorf("%s of %s is not %s: of %d files differ %s", name, env, c.Digest, n, strings.Join(differ, " "))
		}
		return c.Digest
	}
	r.t.Fatalf("%s has no container %s", env, name)
	return ""
}

// unpacked is an image's tree, out of the OCI layout that slipway exports.
func (r root) unpacked(image string) string {
	r.t.Helper()
	dir := r.t.TempDir()
	if code, _, _ := r.slipway("images", "export", image, "--output", dir+"/layout", "--name", "example.com/witness:1"); code != 0 {
		r.t.Fatalf("images export %s: exit code %d", image, code)
	}
	tag, err := exec.Command("umoci", "ls", "--layout", dir+"/layout").Output()
	if err != nil {
		r.t.Fatal(err)
	}
	unpack := exec.Command("umoci", "raw", "unpack", "--image", dir+"/layout:"+strings.TrimSpace(string(tag)), dir+"/tree")
	if out, err := unpack.CombinedOutput(); err != nil {
		r.t.Fatalf("umoci: %v\n%s", err, out)
	}
	return dir + "/tree"
}

// differences counts the files of tree and names those that are not the same in
// the other one. What a container is given on top is not looked at: files that
// tree has not, and those that name the host.
func differences(t *testing.T, tree, other string) (files int, differ []string) {
	t.Helper()
	given := map[string]bool{"/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, tree)
		if err != nil || !d.Type().IsRegular() || given[name] {
			return err
		}
		files++
		a, err := sum(path)
		b, missing := sum(other + name)
		if a != b || missing != nil {
			differ = append(differ, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, differ
}

func sum(path string) (_ [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return [32]byte{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [32]byte(h.Sum(nil)), err
}
