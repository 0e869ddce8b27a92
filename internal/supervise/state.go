package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// state is the directory in which a supervisor keeps what it has to run:
//
//	lock             held by the process that supervises this root
//	socket           where it is spoken to
//	projects/NAME    the Spec of each project, as JSON
//	layers/DIGEST    the file systems they run on
//	volumes/NAME/V   the volumes of a project
//	files/NAME/C     configuration files, written at each start of a container
//	logs/NAME/C      what a container said
type state string

func (s state) socket() string          { return filepath.Join(string(s), "socket") }
func (s state) layers() string          { return filepath.Join(string(s), "layers") }
func (s state) projects() string        { return filepath.Join(string(s), "projects") }
func (s state) spec(name string) string { return filepath.Join(s.projects(), name) }
func (s state) volume(project, name string) string {
	return filepath.Join(string(s), "volumes", project, name)
}

func (s state) logs(project, container string) string {
	return filepath.Join(string(s), "logs", project, container)
}

func (s state) files(project, container string) string {
	return filepath.Join(string(s), "files", project, container)
}

// save keeps a spec, whole or not at all, also when the power goes.
func (s state) save(spec Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("keep project %s: %w", spec.Project, err)
	}
	if err := writeSynced(s.spec(spec.Project), data); err != nil {
		return fmt.Errorf("keep project %s: %w", spec.Project, err)
	}
	return nil
}

func (s state) forget(project string) error {
	err := os.Remove(s.spec(project))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget project %s: %w", project, err)
	}
	return syncDir(s.projects())
}

// load reads every project. One that cannot be read is an error beside the others.
func (s state) load() ([]Spec, error) {
	entries, err := os.ReadDir(s.projects())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	var specs []Spec
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // half written when the power went
		}
		spec, err := s.read(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		specs = append(specs, spec)
	}
	return specs, errors.Join(errs...)
}

func (s state) read(project string) (Spec, error) {
	data, err := os.ReadFile(s.spec(project))
	if err != nil {
		return Spec{}, err
	}
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return Spec{}, fmt.Errorf("project %s: %s is damaged: %w; deliver it again", project, s.spec(project), err)
	}
	return spec, spec.Check()
}

// digests are those that some project runs.
func digests(specs []Spec) []digest.Digest {
	var all []digest.Digest
	for _, s := range specs {
		for _, c := range s.Containers {
			if !slices.Contains(all, c.Digest) {
				all = append(all, c.Digest)
			}
		}
	}
	return all
}

// writeSynced writes a file beside its place, and renames it when it is on the disk.
func writeSynced(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
