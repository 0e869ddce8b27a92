# The page that the build made greets everyone, and nobody twice.
set -eu
page=/app/site/index.html
for name in Ada Grace Edsger; do
	n=$(grep -c "Hello, $name!" "$page") || true   # grep finds none: 1
	[ "$n" -eq 1 ] || { echo "$name is greeted $n times, want 1"; exit 1; }
	echo "greets $name"
done
