package promote

import "os/exec"

// endWhole leaves a command as it is: no environment is delivered to from Windows.
func endWhole(*exec.Cmd) {}
