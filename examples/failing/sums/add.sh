# Adds its arguments, except that it forgets what lies beyond the second.
add() { echo $(($1 + $2)); }
