package secret

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVault(t *testing.T) {
	v := Vault{Dir: filepath.Join(t.TempDir(), "secrets")}
	now := time.Unix(1700000000, 0)
	for name, events := range map[string][]string{"pip_token": nil, "deploy": {"tag"}, "all": {"push", "tag", "pull_request"}} {
		if err := v.Set("example.com/shop", name, []byte("value of "+name), events, now); err != nil {
			t.Fatal(err)
		}
	}
	for event, want := range map[string]int{"push": 2, "tag": 3, "pull_request": 1, "": 0} {
		got, err := v.For("example.com/shop", event, false)
		if err != nil || len(got) != want {
			t.Errorf("%s: %q, %v", event, got, err)
		}
		if got, err := v.For("example.com/shop", event, true); err != nil || len(got) != 0 {
			t.Errorf("a fork's %s: %q, %v", event, got, err)
		}
	}
	if got, err := v.For("example.com/web", "push", false); err != nil || len(got) != 0 {
		t.Errorf("another repository: %q, %v", got, err)
	}
	list, err := v.List("example.com/shop")
	if err != nil || len(list) != 3 || list[2].Name != "pip_token" || !list[2].Set.Equal(now) {
		t.Errorf("%+v, %v", list, err)
	}
	err = filepath.WalkDir(v.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte("value of")) {
			t.Errorf("%s: a value can be read, or %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A file moved to another name, and a lost key.
	dir := v.dir("example.com/shop")
	if err := errors.Join(v.Remove("example.com/shop", "deploy"), os.Rename(filepath.Join(dir, "all.age"), filepath.Join(dir, "deploy.age"))); err != nil {
		t.Fatal(err)
	}
	if _, err := v.For("example.com/shop", "push", false); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Error(err)
	}
	if err := v.Remove("example.com/shop", "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	_, other := newIdentity(t)
	v.Identity = other
	if _, err := v.For("example.com/shop", "push", false); err == nil || strings.Contains(err.Error(), "value of") {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"../up": v.Set("r", "../up", []byte("x"), nil, now), "no repo": v.Set("", "a", []byte("x"), nil, now),
		"empty": v.Set("r", "a", nil, nil, now), "event": v.Set("r", "a", []byte("x"), []string{"fork"}, now), "large": v.Set("r", "a", make([]byte, maxSize+1), nil, now),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
