//go:build weak

package wire

// WeakArg begins each of the agent's arguments that name a defence to leave off.
// It exists in the hostile suite's build alone.
const WeakArg = "weakened:"
