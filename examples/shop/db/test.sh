#!/bin/sh
# The server starts on an empty directory, and lets the shop in.
set -eu
start --skip-networking &
tries=0
until mariadb --user=shop --password=shop --execute='SELECT 1' shop >/dev/null 2>&1; do
	kill -0 $! || exit 1
	tries=$((tries + 1))
	[ $tries -lt 300 ] || exit 1
	sleep 0.1
done
mariadb --user=shop --password=shop --execute='CREATE TABLE t (n INT); INSERT INTO t VALUES (1); SELECT n FROM t' shop
