# The image's own server delivers the page, as the image's own user.
set -eu
[ "$(id -un)" = nobody ] || { echo "runs as $(id -un), want nobody"; exit 1; }
httpd -p 127.0.0.1:8080 -h /app/site
for try in 1 2 3 4 5 6 7 8 9 10; do
	wget -q -O - http://127.0.0.1:8080/ | grep -q 'Hello, Grace!' && echo 'serves the page' && exit 0
	sleep 0.2
done
echo 'no page after 2 s'
exit 1
