package builder

import (
	"io/fs"
	"os"
	"path/filepath"

	cfs "github.com/containerd/continuity/fs"
)

// hardLinks writes what overlay.Changes leaves out: a file that a step did not
// change but gave another name. Overlayfs copies it up, so that both names are
// one file in the step; without an entry for the old name they would be two in
// the image.
type hardLinks struct {
	write   cfs.ChangeFunc
	written map[string]bool // of files with several names
}

func (h *hardLinks) change(k cfs.ChangeKind, path string, f os.FileInfo, err error) error {
	if k != cfs.ChangeKindDelete && f != nil {
		if _, several := cfs.GetLinkInfo(f); several && f.Mode().IsRegular() {
			h.written[path] = true
		}
	}
	return h.write(k, path, f, err)
}

// complete walks upper for the names of files that were written under another.
func (h *hardLinks) complete(upper string) error {
	if len(h.written) == 0 {
		return nil
	}
	files := map[uint64]bool{}
	type name struct {
		path string
		file os.FileInfo
		id   uint64
	}
	var left []name
	err := filepath.WalkDir(upper, func(at string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		id, several := cfs.GetLinkInfo(info)
		if !several {
			return nil
		}
		rel, err := filepath.Rel(upper, at)
		if err != nil {
			return err
		}
		path := string(filepath.Separator) + rel
		if h.written[path] {
			files[id] = true
		} else {
			left = append(left, name{path, info, id})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range left {
		if files[n.id] {
			if err := h.write(cfs.ChangeKindModify, n.path, n.file, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
