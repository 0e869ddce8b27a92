//go:build !weak

package agent

// off reports whether a defence is switched off, which none ever is: only the
// hostile suite's own build (tag weak) has switches.
func off(string) bool { return false }
