# Three cases; writes what it found to /out/junit.xml, as test runners do.
. /app/add.sh
cases='' failures=0

check() { # NAME WANT ARGS...
	name=$1 want=$2
	shift 2
	got=$(add "$@")
	if [ "$got" = "$want" ]; then
		echo "ok    $name"
		cases="$cases<testcase classname=\"add\" name=\"$name\"/>"
	else
		echo "FAIL  $name: add $* is $got, want $want"
		cases="$cases<testcase classname=\"add\" name=\"$name\"><failure message=\"got $got, want $want\"/></testcase>"
		failures=$((failures + 1))
	fi
}

check two_numbers 5 2 3
check negative_numbers -1 2 -3
check three_numbers 6 1 2 3

echo "<testsuite name=\"sums\" tests=\"3\" failures=\"$failures\">$cases</testsuite>" > /out/junit.xml
[ $failures -eq 0 ]
