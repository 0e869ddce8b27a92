package builder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// eightSteps is the Dockerfile of the comparison with other tools: a base, one
// COPY that changes and one that does not, and commands before and after it.
const eightSteps = `FROM busybox:1
RUN mkdir -p /app /data
COPY requirements.txt /app/
RUN cp /app/requirements.txt /data/installed
RUN seq 1 1000 > /data/seq
COPY src /app/src
RUN cat /app/src/* > /app/bundle
RUN sha256sum /app/bundle > /app/sum
CMD ["/bin/cat", "/app/sum"]
`

func eightStepProject(tb testing.TB) string {
	tb.Helper()
	files := map[string]string{"Dockerfile": eightSteps, "requirements.txt": "django\n"}
	for i := range 20 {
		files[fmt.Sprintf("src/f%d.txt", i)] = fmt.Sprintf("file %d\n", i)
	}
	return project(tb, files)
}

func BenchmarkOpenClose(b *testing.B) {
	o := testOptions(b)
	first := open(b, o)
	importBusybox(b, first, "busybox:1")
	build(b, first, Request{Dir: eightStepProject(b)})
	if err := first.Close(); err != nil {
		b.Fatal(err)
	}
	var closing float64
	b.ResetTimer()
	cpu(b)
	for b.Loop() {
		x, err := Open(context.Background(), o)
		if err != nil {
			b.Fatal(err)
		}
		start := b.Elapsed()
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
		closing += float64(b.Elapsed() - start)
	}
	b.ReportMetric(closing/float64(b.N)/1e6, "close-ms/op")
}

func BenchmarkBuildCached(b *testing.B) {
	x := fresh(b)
	r := Request{Dir: eightStepProject(b)}
	build(b, x, r)
	b.ResetTimer()
	cpu(b)
	for b.Loop() {
		if out := build(b, x, r); !out.Cached {
			b.Fatal("a step ran")
		}
	}
}

func BenchmarkBuildOneFileChanged(b *testing.B) {
	x := fresh(b)
	r := Request{Dir: eightStepProject(b)}
	build(b, x, r)
	n := 0
	b.ResetTimer()
	cpu(b)
	for b.Loop() {
		n++
		if err := os.WriteFile(filepath.Join(r.Dir, "src/f1.txt"), []byte(fmt.Sprint(n)), 0o644); err != nil {
			b.Fatal(err)
		}
		if out := build(b, x, r); out.Cached {
			b.Fatal("no step ran")
		}
	}
}

func BenchmarkBuildNoCache(b *testing.B) {
	x := fresh(b)
	r := Request{Dir: eightStepProject(b), NoCache: true}
	b.ResetTimer()
	cpu(b)
	for b.Loop() {
		build(b, x, r)
	}
}

func BenchmarkRootfs(b *testing.B) {
	x := fresh(b)
	out := build(b, x, Request{Dir: eightStepProject(b)})
	b.ResetTimer()
	cpu(b)
	for b.Loop() {
		fs, err := x.Rootfs(context.Background(), out.Image, "")
		if err != nil {
			b.Fatal(err)
		}
		if err := fs.Release(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkContextOf2000Files(b *testing.B) {
	files := map[string]string{"Dockerfile": "FROM busybox:1\nCOPY . /src\n"}
	for i := range 2000 {
		files[fmt.Sprintf("d%d/f%d.txt", i%40, i)] = fmt.Sprintf("%01000d\n", i)
	}
	x := fresh(b)
	r := Request{Dir: project(b, files)}
	build(b, x, r)
	b.Run("kept", func(b *testing.B) {
		cpu(b)
		for b.Loop() {
			build(b, x, r)
		}
	})
	b.Run("resent", func(b *testing.B) { // every file has another inode
		n := 0
		cpu(b)
		for b.Loop() {
			n++
			b.StopTimer()
			moved := fmt.Sprintf("%s-%d", r.Dir, n)
			if err := os.CopyFS(moved, os.DirFS(r.Dir)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			build(b, x, Request{Dir: moved})
		}
	})
}

// cpu reports the processor time of a benchmark's operations, steps included:
// it says more than the clock does on a busy machine.
func cpu(b *testing.B) {
	start := used()
	b.Cleanup(func() { b.ReportMetric(float64(used()-start)/1e6/float64(b.N), "cpu-ms/op") })
}

func used() (ns int64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			ns += u.Utime.Nano() + u.Stime.Nano()
		}
	}
	return ns
}
