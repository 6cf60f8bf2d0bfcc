# shellcheck shell=bash
# Starting and stopping private engines. All that is known of engine NAME is in $BED_RUN/NAME.

engine_env() {
    local root engine
    engine=$(cat "$BED_RUN/$1/version" 2>/dev/null || echo "$2")
    # Docker's client talks to Podman as well.
    ! is_podman "$engine" || engine=20.10
    root=$(engine_root "$engine")
    printf 'export DOCKER_HOST=unix://%s/%s/docker.sock\n' "$BED_RUN" "$1"
    printf 'export PATH=%s/usr/bin:%s/usr/sbin:%s/bin:$PATH\n' "$root" "$root" "$BED_CACHE"
}

engine_list() {
    local dir
    for dir in "$BED_RUN"/*/; do
        [ -e "$dir/version" ] || continue
        printf '%s engine=%s %s\n' "$(basename "$dir")" "$(cat "$dir/version")" \
            "$(alive "$(basename "$dir")" && echo running || echo stopped)"
    done
}

pid_of() { cat "$BED_RUN/$1/docker.pid" 2>/dev/null || true; }

# A pid file may outlive its process and name a stranger: ours has our own socket on its command line.
is_ours() {
    local pid=$1 name=$2
    [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$BED_RUN/$name/"
}

alive() { is_ours "$(pid_of "$1")" "$1"; }

answers() { curl -fsS --max-time 5 --unix-socket "$BED_RUN/$1/docker.sock" http://engine/_ping; }

engine_up() {
    local name=$1 engine=$2 netns=$3
    mkdir -p "$BED_RUN/$name"
    secure "$name" "$4"
    [ ! -e "$BED_RUN/$name/version" ] || engine=$(cat "$BED_RUN/$name/version")
    if ! alive "$name"; then
        echo "$engine" >"$BED_RUN/$name/version"
        engine_number "$name" >/dev/null
        if [ "$netns" = yes ] || is_podman "$engine"; then make_namespace "$name"; fi
        has_namespace "$name" || make_bridge "$name"
        start "$name"
    fi
    printf 'DOCKER_HOST=unix://%s/%s/docker.sock\n' "$BED_RUN" "$name"
}

# From its next start on.
secure() { [ -z "$2" ] || printf '%s\n' "$2" >"$BED_RUN/$1/tls"; }

# Each engine has a number of its own for its networks, the lowest free one; mkdir makes the claim atomic.
engine_number() {
    local name=$1 n
    if [ ! -e "$BED_RUN/$name/number" ]; then
        mkdir -p "$BED_RUN/.numbers"
        for ((n = 1; n <= 30; n++)); do
            ! mkdir "$BED_RUN/.numbers/$n" 2>/dev/null || break
        done
        [ "$n" -le 30 ] || die "30 engines are there already: tests/bed list, then tests/bed down NAME"
        echo "$n" >"$BED_RUN/$name/number"
    fi
    cat "$BED_RUN/$name/number"
}

# The engine would name its bridge docker0, as any other engine on the host does.
make_bridge() {
    local bridge=bsbed-$1 n
    n=$(engine_number "$1")
    if ! ip link show "$bridge" >/dev/null 2>&1; then
        ip link add "$bridge" type bridge
        ip addr add "10.213.$n.1/24" dev "$bridge"
    fi
    ip link set "$bridge" up
}

# overlay2 needs an upper file system that has what it needs; the kernel is asked instead of a list of names.
storage_driver() {
    local probe driver=vfs
    probe=$(mktemp -d "$BED_DATA/.probe.XXXXXX")
    mkdir "$probe"/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" \
        2>/dev/null; then
        umount "$probe/merged"
        driver=overlay2
    fi
    rm -rf "$probe"
    echo "$driver"
}

# --iptables=false: published ports go through the engine's proxy process, and the host's firewall stays as it is.
# cgroupfs: the systemd driver needs a systemd that runs, which containers and CI machines do not have.
# --shutdown-timeout: a graceful restart waits this long for containers that ignore SIGTERM.
write_arguments() {
    local name=$1 run=$BED_RUN/$1 data=$BED_DATA/$1 n
    local bridge=(--bridge "bsbed-$name")
    local tls=()
    n=$(engine_number "$name")
    if [ -e "$run/tls" ]; then
        tls=(--host tcp://0.0.0.0:2376 --tlsverify --tlscacert "$(cat "$run/tls")/ca.pem"
            --tlscert "$(cat "$run/tls")/server.pem" --tlskey "$(cat "$run/tls")/server.key")
    fi
    ! has_namespace "$name" || bridge=(--bip "10.212.$n.1/24")
    printf '%s\n' --data-root "$data" --exec-root "$run/exec" --pidfile "$run/docker.pid" \
        --host "unix://$run/docker.sock" "${tls[@]}" --config-file "$run/daemon.json" "${bridge[@]}" \
        --default-address-pool "base=10.214.$((n * 8)).0/21,size=27" \
        --iptables=false --ip6tables=false --ip-masq=false --userland-proxy=true \
        --storage-driver "$(storage_driver)" --exec-opt native.cgroupdriver=cgroupfs \
        --cgroup-parent "/backstop-bed-$name" --shutdown-timeout 5 --log-level info >"$run/arguments"
}

# The bed's own binaries come first, so that an installed docker or containerd is never mixed in.
start() {
    local name=$1 run=$BED_RUN/$1 child
    mkdir -p "$BED_DATA/$name"
    if is_podman "$(cat "$run/version")"; then start_podman "$name"; else start_docker "$name"; fi
    child=$!
    if ! wait_for 60 answers_or_died "$name" "$child" || ! answers "$name" >/dev/null 2>&1; then
        tail -n 20 "$run/dockerd.log" >&2
        die "engine $name did not come up; the whole log is $run/dockerd.log"
    fi
    say "engine $(cat "$run/version") '$name' is up"
}

# No garbage is collected before there is some of it: the engine starts itself anew two or three times for each container
# that starts, and half of what that costs is Go's collector at work on a program that is about to end.
start_docker() {
    local name=$1 run=$BED_RUN/$1 root arguments inside=()
    root=$(engine_root "$(cat "$run/version")")
    [ -e "$run/daemon.json" ] || echo '{}' >"$run/daemon.json"
    write_arguments "$name"
    mapfile -t arguments <"$run/arguments"
    ! has_namespace "$name" || inside=(nsenter --net="$(namespace_of "$name")")
    PATH=$root/usr/sbin:$root/usr/bin:$PATH GOGC=off GOMEMLIMIT=256MiB \
        LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu \
        XTABLES_LIBDIR=$root/usr/lib/x86_64-linux-gnu/xtables \
        setsid "${inside[@]}" "$root/usr/sbin/dockerd" "${arguments[@]}" </dev/null >>"$run/dockerd.log" 2>&1 &
}

answers_or_died() { answers "$1" || ! kill -0 "$2"; }

# wait_end SECONDS PID
wait_end() { timeout "$1" tail --pid="$2" -f /dev/null; }

engine_restart() {
    local name=$1 kill=$2 pid
    [ -e "$BED_RUN/$name/version" ] || die "no engine '$name'; start it with: tests/bed up $name"
    secure "$name" "$3"
    pid=$(pid_of "$name")
    if is_ours "$pid" "$name"; then
        if [ "$kill" = yes ]; then kill -KILL "$pid"; else kill -TERM "$pid"; fi
        wait_end 60 "$pid" || die "engine $name (pid $pid) does not end"
    fi
    # An engine that was killed may wait in vain for its containerd on a busy machine and give up; systemd starts it again.
    (start "$name") || start "$name"
    printf 'DOCKER_HOST=unix://%s/%s/docker.sock\n' "$BED_RUN" "$name"
}

engine_stop() {
    local name=$1 pid
    pid=$(pid_of "$name")
    is_ours "$pid" "$name" || return 0
    kill -TERM "$pid"
    wait_end 60 "$pid" || { say "engine $name does not end; killing pid $pid"; kill -KILL "$pid"; }
}

# The wire first: nobody hears a farewell.
engine_kill() {
    local name=$1 pid
    ip link set "bsbed-$name" down
    pid=$(pid_of "$name")
    if is_ours "$pid" "$name"; then
        kill -KILL "$pid"
        wait_end 60 "$pid" || die "engine $name (pid $pid) does not end"
    fi
    end_leftovers "$name"
}

engine_down() {
    local name=$1 run=$BED_RUN/$1
    [ -d "$run" ] || return 0
    if alive "$name"; then remove_containers "$name"; fi
    engine_stop "$name"
    end_leftovers "$name"
    unmount_all "$run"
    unmount_all "$BED_DATA/$name"
    remove_namespace "$name"
    remove_network "$name"
    remove_cgroups "$name"
    [ ! -e "$run/number" ] || rm -rf "$BED_RUN/.numbers/$(cat "$run/number")"
    rm -rf "$run" "${BED_DATA:?}/$name"
    say "engine '$name' is gone"
}

# Containers that ignore SIGTERM would hold the engine's own stop up.
remove_containers() {
    local name=$1 ids engine
    engine=$(cat "$BED_RUN/$name/version")
    ! is_podman "$engine" || engine=20.10
    local client=("$(engine_root "$engine")/usr/bin/docker" -H "unix://$BED_RUN/$name/docker.sock")
    "${client[@]}" swarm leave --force >/dev/null 2>&1 || true
    ids=$("${client[@]}" ps -aq 2>/dev/null) || return 0
    # shellcheck disable=SC2086 # one word for each id
    [ -z "$ids" ] || "${client[@]}" rm -f -v $ids >/dev/null 2>&1 || true
}

# After a crash of the engine its containerd, shims and port proxies may be left. Each has the engine's own directory,
# or (containers) a shim of ours as parent; nothing is ended by its name.
end_leftovers() {
    local name=$1 dir pid parent
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [ "$pid" != $$ ] && is_ours "$pid" "$name" || continue
        case $(readlink "$dir/exe" 2>/dev/null || true) in
            */usr/bin/containerd | */usr/sbin/dockerd | */usr/sbin/docker-proxy | */podman/aardvark-dns) kill -KILL "$pid" 2>/dev/null || true ;;
            */usr/bin/containerd-shim* | */usr/bin/conmon)
                for parent in $(cat "$dir"/task/*/children 2>/dev/null || true); do kill -KILL "$parent" 2>/dev/null || true; done
                kill -KILL "$pid" 2>/dev/null || true
                ;;
        esac
    done
}

# The directory itself and all below it (the engine makes its data directory a mount of its own), deepest first.
unmount_all() {
    local point
    awk -v top="$1" '$5 == top || index($5, top "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
        umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null || true
    done
}

# Bridges of user networks (br-<id>) have addresses of the engine's own pool; they go with the engine.
remove_network() {
    local n bridge
    n=$(cat "$BED_RUN/$1/number" 2>/dev/null) || return 0
    for bridge in $(ip -o -4 addr show | awk -v low="$((n * 8))" -v high="$((n * 8 + 7))" \
        '{ split($4, a, "."); if (a[1] == 10 && a[2] == 214 && a[3] >= low && a[3] <= high) print $2 }'); do
        ip link del "$bridge" 2>/dev/null || true
    done
    ip link del "bsbed-$1" 2>/dev/null || true
}

remove_cgroups() {
    find /sys/fs/cgroup -depth -type d -path "*/backstop-bed-$1*" -exec rmdir {} + 2>/dev/null || true
}
