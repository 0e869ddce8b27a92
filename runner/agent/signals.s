#include "textflag.h"

// A handler of signals that does nothing: it returns to where the kernel's own
// struct says, which ends it (sigreturn(2)).
TEXT ·nothing(SB),NOSPLIT|NOFRAME,$0
	RET

// Its address, as the kernel wants it.
DATA ·nothingAt(SB)/8, $·nothing(SB)
GLOBL ·nothingAt(SB), RODATA, $8
