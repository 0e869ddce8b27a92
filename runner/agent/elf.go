package agent

import (
	"encoding/binary"
	"os"
	"runtime"
	"strings"
)

// machine names e_machine of the ELF specification, by Go's names. Package
// debug/elf knows them all, but would double the agent's size.
func machine(n uint16) string {
	switch n {
	case 3:
		return "386"
	case 8:
		return "mips"
	case 20:
		return "ppc"
	case 21:
		return "ppc64"
	case 22:
		return "s390x"
	case 40:
		return "arm"
	case 62:
		return "amd64"
	case 183:
		return "arm64"
	case 243:
		return "riscv64"
	case 258:
		return "loong64"
	}
	return "another machine"
}

// byteOrder of an ELF file, from e_ident; nil when it is none.
func byteOrder(head []byte) binary.ByteOrder {
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return nil
	}
	if head[5] == 2 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// format says what a file that the kernel would not execute is.
func format(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "is not a program this machine can run"
	}
	defer drop(f)
	head := make([]byte, 64)
	n, _ := f.Read(head)
	order := byteOrder(head[:n])
	if order == nil {
		return "is neither a program nor a script with a #! line"
	}
	return "is built for " + machine(order.Uint16(head[18:])) + ", and this machine is " + runtime.GOARCH + "; build the image for this platform"
}

// loader is the dynamic loader a program asks for (PT_INTERP); empty for none.
func loader(f *os.File) string {
	head := make([]byte, 64)
	n, _ := f.ReadAt(head, 0)
	order := byteOrder(head[:n])
	if order == nil {
		return ""
	}
	var table, offset, size int64 // of the program headers; of the loader's name
	wide := head[4] == 2
	entry, count := int64(order.Uint16(head[42:])), int64(order.Uint16(head[44:]))
	table = int64(order.Uint32(head[28:]))
	if wide {
		table = int64(order.Uint64(head[32:]))
		entry, count = int64(order.Uint16(head[54:])), int64(order.Uint16(head[56:]))
	}
	p := make([]byte, 64)
	for i := range count {
		if n, _ := f.ReadAt(p, table+i*entry); n < 32 {
			return ""
		}
		if order.Uint32(p) != 3 { // PT_INTERP
			continue
		}
		offset, size = int64(order.Uint32(p[4:])), int64(order.Uint32(p[16:]))
		if wide {
			offset, size = int64(order.Uint64(p[8:])), int64(order.Uint64(p[32:]))
		}
		if size <= 0 || size > 4096 {
			return ""
		}
		name := make([]byte, size)
		n, _ := f.ReadAt(name, offset)
		return strings.TrimRight(string(name[:n]), "\x00")
	}
	return ""
}
