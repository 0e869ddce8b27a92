#!/bin/sh
# Starts MariaDB. An empty data directory gets an empty database first. What
# stands in /etc/mysql/init.d is run at every start: it must change nothing twice.
set -eu
data=/var/lib/mysql
if [ ! -d "$data/mysql" ]; then
	mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db >/dev/null
fi
cat /etc/mysql/init.sql >/tmp/init.sql
for file in /etc/mysql/init.d/*.sql; do
	[ ! -e "$file" ] || { echo 'USE shop;' && cat "$file"; } >>/tmp/init.sql
done
exec mariadbd --datadir="$data" "$@"
