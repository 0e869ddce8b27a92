package supervise

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// answering is a server that answers each line with its name and the line.
func answering(t *testing.T, name string) (dialer, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	calls := &atomic.Int32{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "%s %s\n", name, s.Text())
				}
				fmt.Fprintf(c, "%s bye\n", name)
			}()
		}
	}()
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, calls
}

func newDoor(t *testing.T) *door {
	t.Helper()
	d, err := openDoor("127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func call(t *testing.T, d *door) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", d.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

func ask(t *testing.T, c net.Conn, r *bufio.Reader, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	got, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(got)
}

func TestOpenConnectionsStayNewOnesMove(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	first, _ := answering(t, "first")
	second, _ := answering(t, "second")
	d.point(first)
	c, r := call(t, d)
	if got := ask(t, c, r, "1"); got != "first 1" {
		t.Fatal(got)
	}
	before := d.point(second)
	if got := ask(t, c, r, "2"); got != "first 2" {
		t.Errorf("an open connection went over: %s", got)
	}
	c2, r2 := call(t, d)
	if got := ask(t, c2, r2, "3"); got != "second 3" {
		t.Errorf("a new connection got %s", got)
	}
	select {
	case <-before.empty:
		t.Error("the old room counts as empty with a connection in it")
	default:
	}
	// Half closed: what is still to be said arrives, then the room is empty.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "first bye\n" {
		t.Errorf("the rest is %q, %v", rest, err)
	}
	before.drain(t.Context(), time.Minute)
	select {
	case <-before.empty:
	default:
		t.Error("the old room is not empty after its last connection ended")
	}
}

func TestCallersWaitWhileThereIsNobody(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	c, r := call(t, d)
	if _, err := fmt.Fprintln(c, "early"); err != nil {
		t.Fatal(err)
	}
	late, _ := answering(t, "late")
	d.point(late)
	if got, err := r.ReadString('\n'); err != nil || got != "late early\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A container that is there but does not listen yet, or has just died.
func TestRefusedCallIsTriedAgain(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	inner, _ := answering(t, "up")
	var tries atomic.Int32
	d.point(func(ctx context.Context) (net.Conn, error) {
		if tries.Add(1) < 3 {
			return nil, fmt.Errorf("connection refused")
		}
		return inner(ctx)
	})
	c, r := call(t, d)
	if got := ask(t, c, r, "x"); got != "up x" {
		t.Error(got)
	}
}

// TestNoRequestIsLostInSwitches is the promise of a promotion: whoever calls
// during fifty switches gets an answer, and one from a room that had not been emptied.
func TestNoRequestIsLostInSwitches(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	a, _ := answering(t, "a")
	b, _ := answering(t, "b")
	d.point(a)
	var answered, lost atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", d.listener.Addr().String())
				if err != nil {
					lost.Add(1)
					continue
				}
				_, _ = fmt.Fprintln(c, "q")
				line, err := bufio.NewReader(c).ReadString('\n')
				if err != nil || !strings.HasSuffix(line, " q\n") {
					lost.Add(1)
				} else {
					answered.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	for i := range 50 {
		to := a
		if i%2 == 0 {
			to = b
		}
		d.point(to).drain(t.Context(), time.Minute)
	}
	for answered.Load() == 0 && lost.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	callers.Wait()
	if lost.Load() > 0 || answered.Load() == 0 {
		t.Errorf("%d answered, %d lost", answered.Load(), lost.Load())
	}
}

func TestPortThatIsTaken(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	_, err := openDoor(d.listener.Addr().String(), zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "choose another under ports") {
		t.Errorf("got %v", err)
	}
}

func TestCloseCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	a, _ := answering(t, "a")
	d.point(a)
	c, r := call(t, d)
	ask(t, c, r, "1")
	waiting, _ := call(t, d)
	d.close()
	for _, c := range []net.Conn{c, waiting} {
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	}
}
