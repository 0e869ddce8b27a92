package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
)

// Vault keeps the secrets that runs of a repository may read, each in a file of
// its own, encrypted for an age identity. Names and repositories are not secret:
// they are names of files.
type Vault struct {
	Dir      string
	Identity string // file of the identity; empty: "identity" in Dir, which the first Set makes
}

// Kept is a secret of a Vault, without its value.
type Kept struct {
	Name   string    `json:"name"`
	Events []string  `json:"events"` // whose runs may read it
	Set    time.Time `json:"set"`
}

// sealed is what a file holds, encrypted.
type sealed struct {
	Kept
	Repo  string `json:"repo"` // a file that is moved to another repository's is refused
	Value []byte `json:"value"`
}

// eventNames are the events whose runs can be given secrets.
var eventNames = []string{"push", "tag", "pull_request"}

var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,99}$`)

func (v Vault) file(repo, name string) (string, error) {
	if repo == "" || len(repo) > 200 {
		return "", fmt.Errorf("the repository %q: give its name, as slipway repos ls prints it", repo)
	}
	if !namePattern.MatchString(name) {
		return "", fmt.Errorf("the secret %q: a name has letters, digits, and _ . - behind the first letter", name)
	}
	return filepath.Join(v.dir(repo), name+".age"), nil
}

func (v Vault) dir(repo string) string { return filepath.Join(v.Dir, "repo-"+url.PathEscape(repo)) }

func (v Vault) identity() string {
	if v.Identity != "" {
		return v.Identity
	}
	return filepath.Join(v.Dir, "identity")
}

// Set keeps a value, in the place of one of the same name. No events stands for
// push and tag.
func (v Vault) Set(repo, name string, value []byte, events []string, now time.Time) error {
	file, err := v.file(repo, name)
	if err != nil {
		return err
	}
	if len(value) == 0 || len(value) > maxSize {
		return fmt.Errorf("secret %s: it has %d bytes; give from 1 to %d", name, len(value), maxSize)
	}
	if len(events) == 0 {
		events = []string{"push", "tag"}
	}
	for _, e := range events {
		if !slices.Contains(eventNames, e) {
			return fmt.Errorf("secret %s: there is no event %q; write some of %s", name, e, strings.Join(eventNames, ", "))
		}
	}
	to, err := v.recipient()
	if err != nil {
		return err
	}
	plain, err := json.Marshal(sealed{Kept{name, events, now.UTC().Truncate(time.Second)}, repo, value})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("encrypt the secret %s: %w", name, err)
	}
	return replace(file, out.Bytes())
}

// recipient reads the identity, and makes one where there is none and none was given.
func (v Vault) recipient() (age.Recipient, error) {
	text, err := os.ReadFile(v.identity())
	if errors.Is(err, fs.ErrNotExist) && v.Identity == "" {
		made, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		return made.Recipient(), replace(v.identity(), []byte(made.String()+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of the secrets: %w", err)
	}
	all, err := age.ParseIdentities(bytes.NewReader(text))
	if err == nil && len(all) > 0 {
		if x, ok := all[0].(*age.X25519Identity); ok {
			return x.Recipient(), nil
		}
	}
	// What the library says may quote the file, and the file is a key.
	return nil, fmt.Errorf("%s does not begin with an age identity (AGE-SECRET-KEY-…); make one with age-keygen", v.identity())
}

// replace writes a file that only its owner reads, whole or not at all.
func replace(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// List gives the secrets of a repository by name.
func (v Vault) List(repo string) ([]Kept, error) {
	var all []Kept
	err := v.each(repo, func(s sealed) { all = append(all, s.Kept) })
	return all, err
}

// Remove forgets a secret. The error is an fs.ErrNotExist where there is none.
func (v Vault) Remove(repo, name string) error {
	file, err := v.file(repo, name)
	if err == nil {
		err = os.Remove(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no secret %s: %w; slipway secrets ls lists them", repo, name, fs.ErrNotExist)
	}
	return err
}

// For gives the values that a run may read: those set for its event, and none
// whatever they say where it comes from a fork.
func (v Vault) For(repo, event string, fork bool) (map[string][]byte, error) {
	values := map[string][]byte{}
	if fork {
		return values, nil
	}
	err := v.each(repo, func(s sealed) {
		if slices.Contains(s.Events, event) {
			values[s.Name] = s.Value
		}
	})
	return values, err
}

// each opens the secrets of a repository, by name.
func (v Vault) each(repo string, do func(sealed)) error {
	entries, err := os.ReadDir(v.dir(repo))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".age")
		if !ok {
			continue // what a crash left
		}
		file := filepath.Join(v.dir(repo), e.Name())
		s, err := v.unseal(file)
		if err != nil {
			return err
		}
		if s.Name != name || s.Repo != repo {
			return fmt.Errorf("%s holds a secret of another name or repository; set it again", file)
		}
		do(s)
	}
	return nil
}

func (v Vault) unseal(file string) (s sealed, err error) {
	key, err := os.ReadFile(v.identity())
	if err != nil {
		return s, fmt.Errorf("read the key of the secrets: %w; put it back, or remove the secrets and set them again", err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		return s, fmt.Errorf("%s holds something else than age identities; put the key back", v.identity())
	}
	f, err := os.Open(file)
	if err != nil {
		return s, err
	}
	defer func() { _ = f.Close() }() // only read from
	plain, err := age.Decrypt(f, identities...)
	if err == nil {
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(plain, 4*maxSize)); err == nil {
			err = json.Unmarshal(data, &s)
		}
	}
	if err != nil { // it may quote what it read
		return s, fmt.Errorf("%s cannot be opened with the key in %s; put the key back, or set the secret again", file, v.identity())
	}
	return s, nil
}
