package dockerfile

import (
	"encoding/json"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// Digests remembers what files were read as, so that an unchanged file need not
// be read again. A file counts as unchanged only while inode, size, time of
// modification and time of change (which no program can set back) are the same;
// a file changed within the last moments is not remembered, because another
// change might get the same time. The zero value is empty and works. It may be
// stored as JSON between runs.
type Digests struct {
	mu    sync.Mutex
	files map[string]digested
}

type digested struct {
	Dev    uint64        `json:"d"`
	Inode  uint64        `json:"i"`
	Size   int64         `json:"s"`
	Mtime  int64         `json:"m"` // nanoseconds since 1970
	Ctime  int64         `json:"c"`
	Digest digest.Digest `json:"h"`
	used   bool
}

// settled is how old a change must be to be told from the next one, on the
// coarsest clock a file system has (FAT's two seconds).
const settled = 2 * time.Second

// most bounds what is stored; above it only what was used since loading is.
const most = 200_000

func stampOf(fi fs.FileInfo) (digested, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return digested{}, false
	}
	return digested{
		Dev: uint64(st.Dev), Inode: st.Ino, Size: st.Size, //nolint:unconvert // Dev's type differs between platforms
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}, true
}

// known is the digest of the file at path if it is still the one remembered.
func (d *Digests) known(path string, now digested) (digest.Digest, bool) {
	if d == nil {
		return "", false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.files[path]
	if !ok {
		return "", false
	}
	sum := old.Digest
	old.Digest, old.used = "", false
	if old != now {
		return "", false
	}
	old.Digest, old.used = sum, true
	d.files[path] = old
	return sum, true
}

// remember notes that the file at path, seen as f before reading, was sum.
func (d *Digests) remember(path string, f digested, sum digest.Digest, read time.Time) {
	if d == nil || read.Sub(time.Unix(0, f.Ctime)) < settled {
		return
	}
	f.Digest, f.used = sum, true
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		d.files = map[string]digested{}
	}
	d.files[path] = f
}

// MarshalJSON implements json.Marshaler.
func (d *Digests) MarshalJSON() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.files) <= most {
		return json.Marshal(d.files)
	}
	used := map[string]digested{}
	for path, f := range d.files {
		if f.used {
			used[path] = f
		}
	}
	return json.Marshal(used)
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Digests) UnmarshalJSON(data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Unmarshal(data, &d.files)
}
