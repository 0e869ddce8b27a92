#!/bin/sh
# Starts the server without a network, loads the catalogue, and stops it cleanly.
set -eu
start --skip-networking &
until mariadb --user=shop --password=shop --execute='SELECT 1' shop >/dev/null 2>&1; do
	kill -0 $! || exit 1
	sleep 0.1
done
cat /seed/schema.sql /seed/catalogue.sql | mariadb --user=shop --password=shop shop
mariadb --user=root --execute=SHUTDOWN
wait
