# log WORD...: one line with the program's name before it.
log() { echo "${0##*/}: $*"; }
