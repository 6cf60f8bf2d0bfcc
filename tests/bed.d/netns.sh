# shellcheck shell=bash
# An engine in a network namespace of its own, as on a machine of its own: for a Swarm of several nodes, and for Podman.
# Its address is 10.213.N.2; its containers' networks are reached from the host, and from other such engines, through it.

namespace_of() { printf '/run/netns/bsbed-%s' "$1"; }

has_namespace() { [ -e "$(namespace_of "$1")" ]; }

make_namespace() {
    local name=$1 n
    n=$(engine_number "$name")
    ! has_namespace "$name" || return 0
    ip netns add "bsbed-$name"
    ip link add "bsbed-$name" type veth peer name eth0 netns "bsbed-$name"
    ip addr add "10.213.$n.1/24" dev "bsbed-$name"
    ip link set "bsbed-$name" up
    ip -n "bsbed-$name" addr add "10.213.$n.2/24" dev eth0
    ip -n "bsbed-$name" link set eth0 up
    ip -n "bsbed-$name" link set lo up
    ip -n "bsbed-$name" route add default via "10.213.$n.1"
    ip route add "10.212.$n.0/24" via "10.213.$n.2"
    ip route add "10.214.$((n * 8)).0/21" via "10.213.$n.2"
    # The engine would do so as well; between two of them it is the host that forwards.
    nsenter --net="$(namespace_of "$name")" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || echo 1 >/proc/sys/net/ipv4/ip_forward
}

# Its end of the wire goes with it, and the routes with the wire.
remove_namespace() {
    ! has_namespace "$1" || ip netns del "bsbed-$1"
}

# The address of an engine in a namespace.
engine_address() { printf '10.213.%s.2\n' "$(engine_number "$1")"; }
