package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"slipway/internal/need"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/runner"
)

// BenchmarkCommits is how many transactions a second MariaDB makes sure of, one
// after another, on a copy of a volume and on the host's own file system, where
// its fsync reaches the disk and where it returns at once.
func BenchmarkCommits(b *testing.B) {
	need.Root(b)
	if _, err := os.Stat("/usr/sbin/mariadbd"); err != nil {
		need.Have(b, "mariadb", fmt.Errorf("%w; install mariadb-server", err))
	}
	r := open(b)
	store, err := volume.Open(b.Context(), volume.Options{Root: b.TempDir(), Backend: volume.BtrfsLoop})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	r.reopen() // its helper sees the store's mount
	const script = `
mariadb-install-db --no-defaults --user=root --datadir=/data/db --auth-root-authentication-method=normal --skip-test-db >/dev/null 2>&1
mariadbd --no-defaults --user=root --datadir=/data/db --socket=/tmp/s --skip-networking --log-error=/tmp/log &
until mariadb-admin --no-defaults --socket=/tmp/s ping >/dev/null 2>&1; do sleep 0.1; done
client() { mariadb --no-defaults --socket=/tmp/s --user=root "$@"; }
client -e 'CREATE DATABASE d; CREATE TABLE d.r (i INT)'
seq 1000 | sed 's/.*/INSERT INTO r VALUES (&);/' > /tmp/sql
start=$(date +%s%N); client d < /tmp/sql; echo took $((($(date +%s%N) - start) / 1000))
`
	for _, volatile := range []bool{false, true} {
		for _, where := range []string{"copy", "host"} {
			b.Run(fmt.Sprintf("volatile=%v/%s", volatile, where), func(b *testing.B) {
				for range b.N {
					dir := b.TempDir()
					if where == "copy" {
						c, err := store.Empty(b.Context(), volume.CopyOptions{})
						if err != nil {
							b.Fatal(err)
						}
						dir = c.Dir
					}
					b.ReportMetric(float64(commits(b, r, dir, script, volatile)), "commits/s")
				}
			})
		}
	}
}

// commits runs a script whose last line is "took MICROSECONDS" in a container of
// this machine's own programs.
func commits(b *testing.B, r *bench, dir, script string, volatile bool) int {
	var out bytes.Buffer
	layer := b.TempDir()
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(layer, name)); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(layer, "tmp"), 0o777); err != nil {
		b.Fatal(err)
	}
	c, err := r.Start(b.Context(), runner.ContainerRequest{
		ID: "commits", Volatile: volatile, Service: pipeline.Service{Command: []string{"bash", "-c", script}},
		Binds: []runner.Bind{
			{Source: dir, Target: "/data"},
			{Source: "/usr", Target: "/usr", ReadOnly: true},
			{Source: "/etc/alternatives", Target: "/etc/alternatives", ReadOnly: true},
			{Source: "/etc/passwd", Target: "/etc/passwd", ReadOnly: true},
		},
		Rootfs: func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{layer}}, nil
		},
	}, &out)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	<-c.Ended()
	_, took, _ := strings.Cut(out.String(), "took ")
	us, err := strconv.Atoi(strings.TrimSpace(took))
	if err != nil {
		b.Fatalf("%v\n%s", err, out.String())
	}
	return 1000 * 1_000_000 / us
}
