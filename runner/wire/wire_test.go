package wire

import (
	"reflect"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, want := range []Body{
		&Exec{
			Nonce: Nonce{1, 2, 3}, Args: []string{"sh", "-c", "é\x00"}, Env: []string{"A=b"}, User: "bob", Dir: "/x", Resolv: "r", Out: "/out", Hosts: "h", Beside: true, Stdin: true, Stderr: true, TTY: true, Rows: 24, Cols: 80,
			Secrets: []Secret{{"a", []byte("b")}, {"c", []byte{0}}},
		},
		&Stop{},
		&Connect{},
		&Signal{Nonce: Nonce{3}, Number: 15},
		&Started{Nonce: Nonce{9}, At: 1 << 40},
		&Done{Nonce: Nonce{15: 7}, Exit: 139, Signal: 11, Interrupted: true, Lost: true, Bytes: 1 << 63, Started: -1, Ended: 5},
		&Refused{Exit: 127, Reason: "no"},
		&Setup{Root: "/run/x", Hostname: "h", Masked: []string{"/proc/kcore", "/sys/firmware"}, Unified: true},
	} {
		frame := Encode(want)
		kind, size, err := ParseHeader(frame)
		if err != nil || kind != want.kind() || size != len(frame)-HeaderSize {
			t.Fatalf("%T: header %d %d %v", want, kind, size, err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface().(Body)
		if err := Decode(frame[HeaderSize:], got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		for n := range len(frame) - HeaderSize {
			if Decode(frame[HeaderSize:HeaderSize+n], got) == nil {
				t.Errorf("%T cut to %d bytes was taken", want, n)
			}
		}
		if Decode(append(frame[HeaderSize:], 0), got) == nil {
			t.Errorf("%T with a byte too many was taken", want)
		}
	}
}

// Whatever is read, decoding neither panics nor takes memory for a count that
// the bytes cannot hold.
func FuzzDecode(f *testing.F) {
	f.Add(Encode(&Exec{Args: []string{"a"}, Secrets: []Secret{{"n", []byte("d")}}})[HeaderSize:])
	f.Add(Encode(&Done{})[HeaderSize:])
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 127})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, b := range []Body{&Exec{}, &Started{}, &Done{}, &Refused{}, &Signal{}, &Setup{}} {
			if Decode(data, b) == nil {
				if again := Encode(b); string(again[HeaderSize:]) != string(data) {
					t.Errorf("%T: %x came back as %x", b, data, again[HeaderSize:])
				}
			}
		}
	})
}
