# Sourced by run: starts and stops what slipway is measured against.

# What goes wrong is shown, what goes well is not.
quietly() {
	"$@" >"$work/log" 2>&1 && return
	cat "$work/log" >&2
	echo "bench: failed (its output is above): $*" >&2
	exit 1
}

# docker's daemon gets a network namespace of its own: its firewall rules and
# bridge touch nothing of this machine, and go when it goes.
start_docker() {
	export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker-config DOCKER_BUILDKIT=1
	mkdir -p "$work/docker-config" && echo '{}' >"$work/docker-config/config.json" # podman insists on the file
	cat >"$work/dockerd" <<-EOF
		busybox ip link set lo up
		exec dockerd --data-root $work/docker --exec-root $work/docker-exec --pidfile $work/docker.pid \\
			--host $DOCKER_HOST --storage-driver overlay2
	EOF
	unshare --net sh "$work/dockerd" >"$work/dockerd.log" 2>&1 &
	docker_pid=$!
	for _ in $(seq 150); do
		$docker version >/dev/null 2>&1 && break
		kill -0 $docker_pid 2>/dev/null || break
		sleep 0.2
	done
	if ! $docker version >/dev/null 2>&1; then
		tail -20 "$work/dockerd.log" >&2
		echo "bench: dockerd did not start (its log is above)" >&2
		exit 1
	fi
	quietly $docker import "$base" base.example/busybox:1
	quietly $docker import "$bases/redis.tar" base.example/redis:7
}

stop_docker() {
	[ -n "${docker_pid:-}" ] || return 0
	kill "$docker_pid" 2>/dev/null || true
	wait "$docker_pid" 2>/dev/null || true
	docker_pid=
}

# What peers left mounted below the working directory, innermost first.
unmount() {
	awk -v dir="$work/" 'index($2, dir) == 1 {print $2}' /proc/self/mounts | sort -r | while read -r m; do umount "$m" || umount -l "$m"; done
}

# podman keeps its state below the temporary directory too. The limit on open
# files is written down because some machines (containers) may not raise theirs.
start_podman() {
	export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
	cat >"$CONTAINERS_CONF" <<-EOF
		[containers]
		default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "none"
	EOF
	cat >"$CONTAINERS_STORAGE_CONF" <<-EOF
		[storage]
		driver = "overlay"
		graphroot = "$work/podman"
		runroot = "$work/podman-run"
	EOF
	quietly podman import "$base" base.example/busybox:1
	quietly podman import "$bases/redis.tar" base.example/redis:7
	podman_run="podman --runtime $(podman_runtime run)"
	podman_build="podman --runtime $(podman_runtime build) build"
}

# The quicker of podman's two runtimes that works here: crun refuses some
# machines with cgroup v1, and building is not running.
podman_runtime() { # run|build
	case $1 in
	run) podman --runtime crun run --rm --network none base.example/busybox:1 true ;;
	build) printf 'FROM base.example/busybox:1\nRUN true\n' | podman --runtime crun build --network none - ;;
	esac >/dev/null 2>&1 && echo crun || echo runc
}

stop_podman() {
	[ -e "$work/podman" ] || return 0
	podman rm -af >/dev/null 2>&1 || true
}

# Both peers leave empty cgroups of theirs: those that were not there before go.
peer_cgroups() { find /sys/fs/cgroup -maxdepth 2 \( -name docker -o -name libpod_parent -o -name buildkit \) -type d 2>/dev/null; }

remove_cgroups() {
	peer_cgroups | grep -vxF "${cgroups_before:-none}" | while read -r dir; do
		find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
}

start_slipway() {
	export SLIPWAY_ROOT=$work/slipway
	quietly "$slipway" images import "$base" --name base.example/busybox:1
	quietly "$slipway" images import "$bases/redis.tar" --name base.example/redis:7
}

versions() {
	jq -n --arg slipway "$("$slipway" version 2>&1 | head -1)" \
		--arg docker "$($docker version --format '{{.Server.Version}}')" \
		--arg podman "$(podman --version | sed 's/.* //') with ${podman_run##* }" \
		--arg compose "$(docker-compose version --short)" \
		--arg crane "$("$crane" version)" --arg skopeo "$(skopeo --version | awk '{print $3}')" \
		--arg registry "$(docker-registry --version | awk '{print $3}')" \
		--arg buildah "$(buildah --version | awk '{print $3}')" \
		--arg kernel "$(uname -r)" --arg cpus "$(nproc)" --arg cpu "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" \
		'$ARGS.named'
}

# How long slipway takes to open its store and BuildKit, in milliseconds: what
# its own log says, twenty times.
open_times() {
	for _ in $(seq 20); do
		NO_COLOR=1 "$slipway" --log-level debug images 2>&1 >/dev/null | sed -n 's/.*BuildKit opened.*took_ms=\([0-9.]*\).*/\1/p'
	done | jq -s .
}

# Peak resident memory, in KiB, of docker's daemons, which stay.
docker_peak() {
	local all=0 p
	for p in "$docker_pid" $(pgrep -P "$docker_pid"); do
		all=$((all + $(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$p/status")))
	done
	echo $all
}

# Peak memory of one W4: for slipway the process itself and the largest that it
# started; for docker its daemons, and not its client.
memory() {
	/usr/bin/time -f %M -o "$work/rss" sh -c "exec $slipway run pipeline $work/context/slipway --rerun-tests" >/dev/null 2>&1
	jq -n --argjson slipway "$(tail -1 "$work/rss")" --argjson docker "$(docker_peak)" '{slipway_kib: $slipway, docker_daemons_kib: $docker}'
}
