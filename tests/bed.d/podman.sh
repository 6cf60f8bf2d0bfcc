# shellcheck shell=bash
# A private Podman instead of a Docker Engine: its service answers at the same place, in a network namespace of its own,
# because it writes firewall rules whether asked to or not.

is_podman() { [[ $1 == podman-* ]]; }

# Whatever it starts gets an environment of its own making: so that each finds its libraries, it is started by a script.
wrap_podman() {
    local root=$1 libraries program
    libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
    mkdir -p "$root/bed"
    for program in usr/bin/conmon usr/sbin/runc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$root/$program" >"$root/bed/${program##*/}"
        chmod +x "$root/bed/${program##*/}"
    done
}

# File locks and directories of its own: nothing of a Podman that is on the host is touched. Limits are
# not above those of the host, and one number each, because the API of 4.3 mixes up the two that there can be.
write_podman_configuration() {
    local name=$1 run=$BED_RUN/$1 data=$BED_DATA/$1 root=$2 n
    n=$(engine_number "$name")
    mkdir -p "$run/home/.config/containers"
    echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$run/home/.config/containers/policy.json"
    cat >"$run/containers.conf" <<END
[engine]
cgroup_manager = "cgroupfs"
conmon_path = ["$root/bed/conmon"]
events_logger = "file"
helper_binaries_dir = ["$root/usr/lib/podman", "$root/usr/libexec/podman"]
init_path = "$root/usr/libexec/podman/catatonit"
lock_type = "file"
runtime = "runc"
[engine.runtimes]
runc = ["$root/bed/runc"]
[network]
network_backend = "netavark"
network_config_dir = "$data/networks"
default_subnet = "10.212.$n.0/24"
default_subnet_pools = [{base = "10.214.$((n * 8)).0/21", size = 27}]
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
seccomp_profile = "$root/usr/share/containers/seccomp.json"
END
}

# podman_of NAME ARGUMENT...: replaces this shell. `detached` is what to run it by.
podman_of() {
    local name=$1 run=$BED_RUN/$1 root
    shift
    root=$(engine_root "$(cat "$run/version")")
    export HOME=$run/home CONTAINERS_CONF=$run/containers.conf
    export PATH=$root/usr/sbin:$root/usr/bin:$PATH
    export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
    export XTABLES_LIBDIR=$root/usr/lib/x86_64-linux-gnu/xtables
    exec "${detached[@]}" nsenter --net="$(namespace_of "$name")" "$root/usr/bin/podman" --root "$BED_DATA/$name" \
        --runroot "$run/run" --tmpdir "$run/tmp" --storage-driver "$(cat "$run/driver")" "$@"
}

start_podman() {
    local name=$1 run=$BED_RUN/$1 driver detached=(setsid)
    write_podman_configuration "$name" "$(engine_root "$(cat "$run/version")")"
    driver=$(storage_driver)
    echo "${driver/overlay2/overlay}" >"$run/driver"
    podman_of "$name" system service --time=0 "unix://$run/docker.sock" </dev/null >>"$run/dockerd.log" 2>&1 &
    echo $! >"$run/docker.pid"
}
