package wire

// Protocol names what is said between the parts, so that parts of different
// builds are told apart before they misunderstand each other: the helper says it
// in its first Reply, and looks for it in the agent's file. A test derives it from
// what is in this package.
const Protocol = "slipway-wire-932772f2"

// ProtocolArg as its first argument makes the agent print Protocol.
const ProtocolArg = "protocol"
