set -eu
sh /app/render.sh | grep -q '<p>welcome</p>' || { echo "got: $(sh /app/render.sh)"; exit 1; }
[ "$(wc -l < /lib/shared.txt)" -eq 65536 ] || { echo 'the base is not whole'; exit 1; }
echo 'renders on the shared base'
