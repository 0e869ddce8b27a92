# Sourced by run: writes the work itself. For each piece of work and contender
# there is $work/W.CONTENDER.sh, which is measured, and $work/prepare/W.CONTENDER,
# which runs before each measurement and is not.

contender() { # WORK NAME PREPARE: the measured script is on stdin
	cat >"$work/$1.$2.sh"
	printf '%s\n' "$3" >"$work/prepare/$1.$2"
}

wanted() { [[ ,$only, == *,$1,* ]]; }

# The same files for everyone; each contender has a copy, so that one's edit
# (W5) is not another's.
prepare_work() {
	local c
	mkdir -p "$work/context" "$work/prepare"
	for c in docker podman slipway slipway-one slipway-ten slipway-service; do
		cp -r "$here/context" "$work/context/$c"
	done
	mv "$work/context/slipway/pipelines/build.yml" "$work/context/slipway/.ci.yml"
	mv "$work/context/slipway-one/pipelines/one.yml" "$work/context/slipway-one/.ci.yml"
	mv "$work/context/slipway-ten/pipelines/ten.yml" "$work/context/slipway-ten/.ci.yml"
	mv "$work/context/slipway-service/pipelines/service.yml" "$work/context/slipway-service/.ci.yml"

	if wanted W1; then one_test; fi
	if wanted W2; then ten_tests; fi
	if wanted W3 || wanted W4 || wanted W5; then build_and_test; fi
	if wanted W6; then test_with_service; fi
}

# W1: one test that does nothing, in an image that is built.
one_test() {
	quietly $docker build -t bench "$work/context/docker"
	quietly $podman_build -t bench --network none "$work/context/podman"
	quietly "$slipway" run pipeline "$work/context/slipway-one"
	contender W1 docker true <<<"exec $docker run --rm --network none bench true"
	contender W1 podman true <<<"exec $podman_run run --rm --network none bench true"
	contender W1 slipway true <<<"exec $slipway run pipeline $work/context/slipway-one --rerun-tests"
	contender W1 slipway-reusing true <<<"exec $slipway run pipeline $work/context/slipway-one"
}

# W2: ten of them. The peers as a person would write it to be quick: at once,
# or one container and ten execs (which share it: less than a sandbox a test).
ten_tests() {
	quietly $docker build -t bench "$work/context/docker"
	quietly $podman_build -t bench --network none "$work/context/podman"
	quietly "$slipway" run pipeline "$work/context/slipway-ten"
	local name peer
	for name in docker podman; do
		[ $name = docker ] && peer=$docker || peer=$podman_run
		contender W2 $name true <<-EOF
			seq 10 | xargs -P 4 -I N $peer run --rm --network none bench true
		EOF
		contender W2 $name-exec true <<-EOF
			id=\$($peer run -d --rm --network none bench sleep 60)
			for i in 1 2 3 4 5 6 7 8 9 10; do $peer exec \$id true || exit 1; done
			$peer kill \$id >/dev/null
		EOF
	done
	contender W2 slipway true <<<"exec $slipway run pipeline $work/context/slipway-ten --rerun-tests"
	contender W2 slipway-reusing true <<<"exec $slipway run pipeline $work/context/slipway-ten"
}

# W3: eight steps and a test, the base is there and nothing else.
# W4: again, nothing changed: every step cached, the test runs.
# W5: again, one source file changed.
build_and_test() {
	local docker_work podman_work change
	docker_work="$docker build -q -t bench $work/context/docker >/dev/null && exec $docker run --rm --network none bench sh test.sh"
	podman_work="$podman_build -q --layers -t bench --network none $work/context/podman >/dev/null && exec $podman_run run --rm --network none bench sh test.sh"
	slipway_work="exec $slipway run pipeline $work/context/slipway --rerun-tests"

	contender W3 docker "$docker builder prune -af >/dev/null; $docker rmi -f bench >/dev/null 2>&1 || true" <<<"$docker_work"
	contender W3 podman "podman rmi -af >/dev/null 2>&1; podman import $base base.example/busybox:1 >/dev/null 2>&1" <<<"$podman_work"
	contender W3 slipway "rm -rf $work/cold && $slipway --root $work/cold images import $base --name base.example/busybox:1 >/dev/null 2>&1" \
		<<<"exec $slipway --root $work/cold run pipeline $work/context/slipway"

	for w in W4 W5; do
		change=
		[ $w = W4 ] || change='date +%N >'
		contender $w docker "${change:+$change $work/context/docker/src/main.txt}" <<<"$docker_work"
		contender $w podman "${change:+$change $work/context/podman/src/main.txt}" <<<"$podman_work"
		contender $w slipway "${change:+$change $work/context/slipway/src/main.txt}" <<<"$slipway_work"
	done
	contender W4 slipway-reusing "" <<<"${slipway_work% --rerun-tests}"
}

# W6: a test beside its redis: a private network, a server that is waited for,
# one question from another container, everything removed. The peers are given
# the quickest way a person would write: ask every 10 ms, kill without grace.
test_with_service() {
	quietly "$slipway" run pipeline "$work/context/slipway-service"
	local serve="redis-server --protected-mode no --save ''"
	contender W6 docker true <<-EOF
		$docker network create shop >/dev/null
		$docker run -d --rm --network shop --name cache base.example/redis:7 $serve >/dev/null
		until $docker exec cache redis-cli ping >/dev/null 2>&1; do sleep 0.01; done
		$docker run --rm --network shop base.example/redis:7 redis-cli -h cache ping
		status=\$?
		$docker rm -f cache >/dev/null && $docker network rm shop >/dev/null && exit \$status
	EOF
	cp "$here/context/pipelines/compose.yml" "$work/context/compose.yml"
	contender W6 compose true <<-EOF
		docker-compose -p shop -f $work/context/compose.yml run --rm test
		status=\$?
		docker-compose -p shop -f $work/context/compose.yml down -t 0 && exit \$status
	EOF
	# In a pod, which shares one network and needs none of the host's.
	contender W6 podman true <<-EOF
		$podman_run pod create --name shop --network none --infra-image base.example/redis:7 --infra-command '/bin/sleep 60' >/dev/null
		$podman_run run -d --pod shop --name cache base.example/redis:7 $serve >/dev/null
		until $podman_run exec cache redis-cli ping >/dev/null 2>&1; do sleep 0.01; done
		$podman_run run --rm --pod shop base.example/redis:7 redis-cli -h localhost ping
		status=\$?
		$podman_run pod rm -f -t 0 shop >/dev/null && exit \$status
	EOF
	contender W6 slipway true <<<"exec $slipway run pipeline $work/context/slipway-service --rerun-tests"
}
