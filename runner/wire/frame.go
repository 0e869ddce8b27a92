package wire

import "errors"

// ErrMalformed is a frame that this version does not understand.
var ErrMalformed = errors.New("malformed frame")

// Header codes the first HeaderSize bytes of a frame.
func Header(kind byte, size int) [HeaderSize]byte {
	return [HeaderSize]byte{kind, byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24)}
}

// ParseHeader gives kind and body size.
func ParseHeader(b []byte) (kind byte, size int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, ErrMalformed
	}
	size = int(uint32(b[1]) | uint32(b[2])<<8 | uint32(b[3])<<16 | uint32(b[4])<<24)
	if size > MaxBody {
		return 0, 0, ErrMalformed
	}
	return b[0], size, nil
}

// Body is any frame's content.
type Body interface {
	kind() byte
	code(*coder)
}

func (*Exec) kind() byte    { return KindExec }
func (*Stop) kind() byte    { return KindStop }
func (*Started) kind() byte { return KindStarted }
func (*Done) kind() byte    { return KindDone }
func (*Refused) kind() byte { return KindRefused }
func (*Signal) kind() byte  { return KindSignal }
func (*Connect) kind() byte { return KindConnect }

// Stop asks the agent to kill everything in the sandbox, and to report.
type Stop struct{}

// Encode gives a whole frame.
func Encode(b Body) []byte {
	c := coder{buf: make([]byte, HeaderSize, 256)}
	b.code(&c)
	h := Header(b.kind(), len(c.buf)-HeaderSize)
	copy(c.buf, h[:])
	return c.buf
}

// Decode fills b from a frame's body, which must hold exactly that.
func Decode(body []byte, b Body) error {
	c := coder{buf: body, reading: true}
	b.code(&c)
	if c.bad || len(c.buf) != 0 {
		return ErrMalformed
	}
	return nil
}

func (x *Exec) code(c *coder) {
	c.nonce(&x.Nonce)
	c.strings(&x.Args)
	c.strings(&x.Env)
	c.string(&x.User)
	c.string(&x.Dir)
	c.string(&x.Resolv)
	c.string(&x.Out)
	c.string(&x.Hosts)
	c.bool(&x.Beside)
	c.bool(&x.Stdin)
	c.bool(&x.Stderr)
	c.bool(&x.TTY)
	c.int32(&x.Rows)
	c.int32(&x.Cols)
	n := len(x.Secrets)
	c.count(&n)
	if c.reading && !c.bad {
		x.Secrets = make([]Secret, n)
	}
	for i := range x.Secrets {
		c.string(&x.Secrets[i].Name)
		c.bytes(&x.Secrets[i].Data)
	}
}

func (*Stop) code(*coder) {}

func (*Connect) code(*coder) {}

func (x *Signal) code(c *coder) {
	c.nonce(&x.Nonce)
	c.int32(&x.Number)
}

func (x *Started) code(c *coder) {
	c.nonce(&x.Nonce)
	c.int64(&x.At)
}

func (x *Done) code(c *coder) {
	c.nonce(&x.Nonce)
	c.int32(&x.Exit)
	c.int32(&x.Signal)
	c.bool(&x.Interrupted)
	c.bool(&x.Lost)
	n := int64(x.Bytes)
	c.int64(&n)
	x.Bytes = uint64(n)
	c.int64(&x.Started)
	c.int64(&x.Ended)
}

func (x *Refused) code(c *coder) {
	c.nonce(&x.Nonce)
	c.int32(&x.Exit)
	c.string(&x.Reason)
}
