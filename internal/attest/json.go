package attest

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// encode is JSON with one form: fields in the order of the struct, keys of maps
// sorted, no spaces, and <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a claim: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode reads what encode wrote. Other spellings of the same pass it; whoever
// calls it encodes what came out and compares.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.InputOffset() != int64(len(data)) {
		return fmt.Errorf("%d bytes follow the document", int64(len(data))-d.InputOffset())
	}
	return nil
}
