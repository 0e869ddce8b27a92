# Reads names, one a line, and writes a page that greets each.
echo '<!doctype html><title>hello</title><ul>'
while read -r name; do
	echo "<li>Hello, $name!</li>"
done
echo '</ul>'
