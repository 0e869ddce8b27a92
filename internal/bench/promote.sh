# Sourced by run: W7, an image copied by digest from one registry to another, and
# within one. Everything happens in the network namespace of docker's daemon, so
# that its loopback carries this work and nothing else.

inside() { $in_net "$@"; }

# Two registries of Debian's, with empty storage.
start_registries() {
	local name port
	registry_pids=
	for name in from to; do
		port=$([ $name = from ] && echo 5001 || echo 5002)
		mkdir -p "$work/registry-$name"
		cat >"$work/registry-$name.yml" <<-EOF
			version: 0.1
			log: {level: error}
			storage: {filesystem: {rootdirectory: $work/registry-$name}}
			http: {addr: "127.0.0.1:$port"}
		EOF
		$in_net docker-registry serve "$work/registry-$name.yml" >"$work/registry-$name.log" 2>&1 & # no function: $! is the registry
		registry_pids="$registry_pids $!"
		until inside bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null; do
			kill -0 $! 2>/dev/null || { cat "$work/registry-$name.log" >&2 && exit 1; }
			sleep 0.05
		done
	done
}

stop_registries() {
	local p
	for p in ${registry_pids:-}; do
		kill "$p" 2>/dev/null && wait "$p" 2>/dev/null
	done
	registry_pids=
}

# W7: 100 MB of layers between two registries. W7-5: 5 MB. W7-in: 100 MB from one
# repository to another of the same registry; for slipway, of its own store.
# Before each measurement the target is emptied, and docker forgets the image.
prepare_promotion() {
	local size w image
	[[ $only == *W7* ]] || return 0
	start_registries
	for size in 5 100; do
		mkdir -p "$work/fill" && head -c ${size}000000 /dev/urandom >"$work/fill/data"
		tar -C "$work/fill" -cf "$work/fill.tar" data
		quietly "$slipway" images import "$work/fill.tar" --name base.example/promoted:$size
		quietly inside "$slipway" images push base.example/promoted:$size 127.0.0.1:5001/test/app$size --tag v1
		quietly "$slipway" images push base.example/promoted:$size test/app$size
		image=$(inside "$crane" digest 127.0.0.1:5001/test/app$size:v1)
		w=$([ $size = 5 ] && echo W7-5 || echo W7)
		promotion $w "127.0.0.1:5001/test/app$size@$image" 127.0.0.1:5002/prod/app
	done
	promotion W7-in "127.0.0.1:5001/test/app100@$image" 127.0.0.1:5001/prod/app # the last image, of 100 MB
	contender W7-in slipway "rm -rf $SLIPWAY_ROOT/registry/repos/prod" \
		<<<"exec $slipway images copy test/app100@$image prod/app"
	rm -rf "$work/fill" "$work/fill.tar"
}

promotion() { # WORK FROM TO
	local empty="rm -rf $work/registry-to/docker $work/registry-from/docker/registry/v2/repositories/prod"
	contender "$1" crane "$empty" <<<"exec $in_net $crane copy $2 $3:v1"
	contender "$1" skopeo "$empty" <<<"exec $in_net skopeo copy -q --src-tls-verify=false --dest-tls-verify=false docker://$2 docker://$3:v1"
	contender "$1" slipway "$empty" <<<"exec $in_net $slipway images copy $2 $3"
	contender "$1" docker "$empty; $docker rmi -f $2 127.0.0.1:5001/prod/app:v1 127.0.0.1:5002/prod/app:v1 >/dev/null 2>&1; true" <<-EOF
		$docker pull -q $2 && $docker tag $2 $3:v1 && exec $docker push -q $3:v1
	EOF
}

# What one W7 costs each: bytes over the loopback, both ways and headers
# included, and the peak memory of the process in KiB; for docker the memory is
# that of its daemons, which stay.
promotion_costs() {
	local who before
	wanted W7 || { echo '[]' && return 0; }
	for who in crane skopeo slipway docker; do
		sh "$work/prepare/W7.$who"
		before=$(loopback)
		/usr/bin/time -f %M -o "$work/rss" sh "$work/W7.$who.sh" >/dev/null 2>&1
		jq -n --arg who $who --argjson bytes $(($(loopback) - before)) \
			--argjson kib "$([ $who = docker ] && docker_peak || tail -1 "$work/rss")" '$ARGS.named'
	done | jq -s .
}

loopback() { inside awk '$1 == "lo:" {print $2}' /proc/self/net/dev; }
