package progress

import "bytes"

// longest is how much of a line without an end is held back.
const longest = 64 << 10

// lines holds back a line until it is complete: BuildKit's plain display
// repeats or cuts a line that comes in pieces when it shows a failed step's
// last output again.
type lines struct{ piece []byte }

// whole takes a piece of output and gives the lines that are complete with it.
func (l *lines) whole(data []byte) []byte {
	end := bytes.LastIndexByte(data, '\n') + 1
	if end == 0 && len(l.piece)+len(data) <= longest {
		l.piece = append(l.piece, data...)
		return nil
	}
	if end == 0 {
		end = len(data)
	}
	out := append(l.piece, data[:end]...)
	l.piece = bytes.Clone(data[end:])
	return out
}

// take gives the piece that is left, ended.
func (l *lines) take() []byte {
	if len(l.piece) == 0 {
		return nil
	}
	out := append(l.piece, '\n')
	l.piece = nil
	return out
}
