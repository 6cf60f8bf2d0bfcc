# shellcheck shell=bash
# What the parts of tests/bed share.

# Packages and their unpacked trees; worth keeping between runs.
BED_CACHE=${BACKSTOP_BED_CACHE:-/var/cache/backstop-bed}
# Sockets, pid files and engine state; short, because a socket's path has a limit of 108 bytes.
BED_RUN=${BACKSTOP_BED_RUN:-/run/backstop-bed}
# Images and containers. Must be on a file system that overlay2 accepts as upper layer (ext4, xfs), else vfs is used.
BED_DATA=${BACKSTOP_BED_DATA:-/var/lib/backstop-bed}

say() { printf 'bed: %s\n' "$*" >&2; }
die() { printf 'bed: %s\n' "$*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "an engine needs root: run sudo $0"
}

# wait_for SECONDS COMMAND...: until the command succeeds. For what sends no event that a shell can wait on.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}
