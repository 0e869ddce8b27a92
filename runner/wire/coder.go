package wire

// coder walks a value once for both directions, so that writing and reading
// cannot drift apart. Numbers are little-endian, lists and strings counted.
type coder struct {
	buf     []byte // what is written so far, or what is still to read
	reading bool
	bad     bool
}

// take gives the next n bytes of what is read.
func (c *coder) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.buf) {
		c.bad = true
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) int64(v *int64) {
	if !c.reading {
		for shift := 0; shift < 64; shift += 8 {
			c.buf = append(c.buf, byte(uint64(*v)>>shift))
		}
		return
	}
	var u uint64
	for i, b := range c.take(8) {
		u |= uint64(b) << (8 * i)
	}
	*v = int64(u)
}

func (c *coder) int32(v *int32) {
	w := int64(*v)
	c.int64(&w)
	c.bad = c.bad || w != int64(int32(w))
	*v = int32(w)
}

func (c *coder) bool(v *bool) {
	var w int64
	if *v {
		w = 1
	}
	c.int64(&w)
	c.bad = c.bad || w&^1 != 0
	*v = w == 1
}

// count codes a length. Each element takes at least a byte, so a count beyond
// what is left is a lie, and is caught before memory is taken for it.
func (c *coder) count(n *int) {
	w := int64(*n)
	c.int64(&w)
	if c.reading && (w < 0 || w > int64(len(c.buf))) {
		c.bad = true
		w = 0
	}
	*n = int(w)
}

func (c *coder) bytes(v *[]byte) {
	n := len(*v)
	c.count(&n)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = append([]byte(nil), c.take(n)...)
}

func (c *coder) string(v *string) {
	n := len(*v)
	c.count(&n)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = string(c.take(n))
}

func (c *coder) strings(v *[]string) {
	n := len(*v)
	c.count(&n)
	if c.reading && !c.bad {
		*v = make([]string, n)
	}
	for i := range *v {
		c.string(&(*v)[i])
	}
}

func (c *coder) nonce(v *Nonce) {
	if !c.reading {
		c.buf = append(c.buf, v[:]...)
		return
	}
	copy(v[:], c.take(len(v)))
}
