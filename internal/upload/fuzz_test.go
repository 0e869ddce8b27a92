package upload_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"slipway/internal/upload"
)

// FuzzUnpack: whatever is uploaded, nothing is written outside of the directory, and
// what cannot be unpacked is the upload's fault.
func FuzzUnpack(f *testing.F) {
	dir := f.TempDir()
	for name, text := range map[string]string{"a": "one", "d/e/f": "two", "link": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			f.Fatal(err)
		}
		if text == "" {
			if err := os.Symlink("/etc", filepath.Join(dir, name)); err != nil {
				f.Fatal(err)
			}
		} else if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	tree, err := upload.Open(f.Context(), dir, []upload.Part{{Path: "."}})
	if err != nil {
		f.Fatal(err)
	}
	var packed bytes.Buffer
	if err := errors.Join(tree.Pack(f.Context(), &packed), tree.Close()); err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer z.Close()
	plain, err := z.DecodeAll(packed.Bytes(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, true)
	f.Add(bytes.Replace(plain, []byte("d/e/f"), []byte("../.f"), 1), true)
	f.Add(packed.Bytes(), false)
	pack, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, compress bool) {
		if compress { // else the fuzzer would have to find the checksums
			data = pack.EncodeAll(data, nil)
		}
		top := t.TempDir()
		err := upload.Unpack(t.Context(), bytes.NewReader(data), filepath.Join(top, "out"), 1<<20)
		var damaged *upload.Damaged
		if err != nil && !errors.As(err, &damaged) {
			t.Errorf("%v is no fault of the upload's", err)
		}
		if all, _ := os.ReadDir(top); len(all) > 1 || len(all) == 1 && all[0].Name() != "out" {
			t.Errorf("beside the directory: %v", all)
		}
	})
}
