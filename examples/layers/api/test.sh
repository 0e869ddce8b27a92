set -eu
[ "$(sh /app/answer.sh)" = "answer.sh: 42" ] || { echo "got: $(sh /app/answer.sh)"; exit 1; }
[ "$(wc -l < /lib/shared.txt)" -eq 65536 ] || { echo 'the base is not whole'; exit 1; }
echo 'answers on the shared base'
