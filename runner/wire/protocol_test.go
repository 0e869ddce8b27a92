package wire

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"reflect"
	"testing"
)

// TestProtocol fails when something that is said has changed and its name has not.
func TestProtocol(t *testing.T) {
	h := sha256.New()
	for _, v := range []any{Exec{}, Stop{}, Connect{}, Signal{}, Setup{}, Started{}, Done{}, Refused{}, Call{}, Reply{}, Asked{}, Answer{}} {
		describe(h, reflect.TypeOf(v))
	}
	for _, b := range []Body{&Exec{}, &Stop{}, &Connect{}, &Signal{}, &Setup{}, &Started{}, &Done{}, &Refused{}} {
		fmt.Fprintf(h, "%T %d %d\n", b, b.kind(), len(Encode(b)))
	}
	if want := fmt.Sprintf("slipway-wire-%x", h.Sum(nil)[:4]); Protocol != want {
		t.Errorf("what the parts say to each other has changed: Protocol is to be %q", want)
	}
}

// describe writes down a type with all that it holds.
func describe(h hash.Hash, t reflect.Type) {
	fmt.Fprintf(h, "%s %s\n", t, t.Kind())
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		describe(h, t.Elem())
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[Exec]().PkgPath() {
			return
		}
		for f := range t.NumField() {
			fmt.Fprintf(h, "%s ", t.Field(f).Name)
			describe(h, t.Field(f).Type)
		}
	}
}
