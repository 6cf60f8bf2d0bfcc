# shellcheck shell=bash
# Getting the engine and the tools from Debian's packages. Engine, registry, Prometheus, Alertmanager and the SSH server are
# unpacked into the cache instead of being installed: their packages would start services and take over the host's /var/run/docker.sock.

# Tools without a service behind them are installed as usual: command=package.
BED_TOOLS=(curl=curl jq=jq sqlite3=sqlite3 ip=iproute2 setsid=util-linux ps=procps xz=xz-utils cc=gcc c++=g++
    ld=binutils /usr/bin/python3=python3-minimal)

# The engine, and of its libraries those that a bare system does not have.
BED_LIBRARIES=(libdevmapper1.02.1 libseccomp2 libip4tc2 libip6tc2 libxtables12 libmnl0 libnftnl11 libnfnetlink0
    libnetfilter-conntrack3)

# The Compose that is written in Python, with the libraries that it wants of this release of Debian.
BED_COMPOSE_V1=(docker-compose python3-attr python3-cached-property python3-certifi python3-chardet python3-distro
    python3-distutils python3-docker python3-dockerpty python3-docopt python3-dotenv python3-idna python3-jsonschema
    python3-lib2to3 python3-packaging python3-pkg-resources python3-pyrsistent python3-requests python3-six
    python3-texttable python3-urllib3 python3-websocket python3-yaml)

# PostgreSQL, and of its libraries those that a bare system does not have.
BED_POSTGRES=(libpq5 libicu72 libxml2 libxslt1.1 liblz4-1 libldap-2.5-0 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
    libkrb5support0 libcom-err2 libkeyutils1)

# Both ends of SSH, and of their libraries those that a bare system does not have.
BED_SSH=(openssh-server openssh-client libwrap0 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0
    libcom-err2 libkeyutils1)

engine_root() { printf '%s/engine-%s' "$BED_CACHE" "$1"; }

install_packages() {
    local engine=$1
    mkdir -p "$BED_CACHE"
    # One at a time: two test runs that start together must not unpack over each other.
    exec 9>"$BED_CACHE/.lock"
    flock 9
    install_tools
    case $engine in
        20.10) unpack "engine-20.10" docker.io containerd runc iptables tini "${BED_LIBRARIES[@]}" ;;
        # The newer release's engine runs on this one's libc; its runc does not, so that stays this one's.
        26.1) unpack "engine-26.1" docker.io/trixie docker-cli/trixie containerd/trixie tini/trixie runc iptables \
            "${BED_LIBRARIES[@]}" ;;
        podman-4.3)
            unpack "engine-podman-4.3" podman conmon netavark aardvark-dns catatonit runc iptables libglib2.0-0 libgpgme11 \
                golang-github-containers-common libassuan0 libsubid4 "${BED_LIBRARIES[@]}"
            wrap_podman "$(engine_root "$engine")"
            ;;
        *) die "no such engine: $engine; there are 20.10, 26.1 and podman-4.3" ;;
    esac
    unpack prometheus prometheus
    unpack alertmanager prometheus-alertmanager
    unpack compose docker-compose/trixie
    unpack registry docker-registry
    unpack postgres postgresql-15 postgresql-client-15 "${BED_POSTGRES[@]}"
    unpack ssh "${BED_SSH[@]}"
    unpack compose-v1 "${BED_COMPOSE_V1[@]}"
    link_tools "$engine"
    exec 9>&-
}

install_tools() {
    local pair missing=()
    for pair in "${BED_TOOLS[@]}"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "these are missing, and this is no Debian to get them from: ${missing[*]}"
    say "installing ${missing[*]}"
    refresh_lists
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# Once a run, and only when something has to be fetched. A foreign source that fails must not stop us.
refresh_lists() {
    [ -z "${BED_LISTS_FRESH:-}" ] || return 0
    apt-get update -qq >&2 || say "apt-get update had errors; going on with the lists there are"
    BED_LISTS_FRESH=yes
}

# unpack TREE PACKAGE...: into $BED_CACHE/TREE. PACKAGE/trixie comes from that release of Debian, which the host's own
# lists know nothing of. The marker is written last, so that a broken run is done again.
unpack() {
    local tree=$BED_CACHE/$1 debs=$BED_CACHE/debs-$1
    shift
    [ ! -e "$tree/.complete" ] || return 0
    command -v dpkg >/dev/null || die "the engine is unpacked from Debian's packages: run this on Debian 12"
    say "fetching $*"
    refresh_lists
    rm -rf "$tree" "$debs"
    mkdir -p "$tree" "$debs"
    local package deb own=() newer=()
    for package in "$@"; do
        case $package in */trixie) newer+=("${package%/*}") ;; *) own+=("$package") ;; esac
    done
    (
        cd "$debs"
        [ ${#own[@]} = 0 ] || apt-get download -qq -o APT::Sandbox::User=root "${own[@]}" >&2
        [ ${#newer[@]} = 0 ] || trixie download -qq "${newer[@]}" >&2
    )
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$tree"; done
    rm -rf "$debs"
    touch "$tree/.complete"
}

# apt-get with lists of its own, from the mirror that the host uses.
trixie() {
    local apt=$BED_CACHE/apt-trixie site
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    if [ ! -e "$apt/.complete" ]; then
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
        site=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' 'Component: main' | head -n 1)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" >"$apt/sources.list"
        apt-get "${options[@]}" update -qq >&2
        touch "$apt/.complete"
    fi
    apt-get "${options[@]}" "$@"
}

# Names that the packages' installation scripts would have made.
link_tools() {
    local root
    root=$(engine_root "$1")
    ln -sfn xtables-nft-multi "$root/usr/sbin/iptables"
    ln -sfn xtables-nft-multi "$root/usr/sbin/ip6tables"
    if ! is_podman "$1"; then
        # The static init needs nothing of the image it is put into.
        ln -sfn tini-static "$root/usr/bin/docker-init"
        # An engine that finds this beside it takes requests for GPUs; there are none, and nothing is done for them.
        executable "$root/usr/bin/nvidia-container-runtime-hook" ""
    fi
    mkdir -p "$BED_CACHE/bin"
    ln -sfn ../prometheus/usr/bin/promtool "$BED_CACHE/bin/promtool"
    ln -sfn ../prometheus/usr/bin/prometheus "$BED_CACHE/bin/prometheus"
    ln -sfn ../alertmanager/usr/bin/prometheus-alertmanager "$BED_CACHE/bin/alertmanager"
    # Alertmanager has the place of its own templates compiled in.
    if [ ! -e /usr/share/prometheus/alertmanager ]; then
        mkdir -p /usr/share/prometheus
        ln -s "$BED_CACHE/alertmanager/usr/share/prometheus/alertmanager" /usr/share/prometheus/alertmanager
    fi
    ln -sfn ../registry/usr/bin/docker-registry "$BED_CACHE/bin/docker-registry"
    local program
    for program in postgres initdb psql pg_dump; do with_libraries postgres "usr/lib/postgresql/15/bin/$program"; done
    for program in bin/ssh bin/ssh-keygen sbin/sshd; do with_libraries ssh "usr/$program"; done
    ln -sfn ../compose/usr/libexec/docker/cli-plugins/docker-compose "$BED_CACHE/bin/docker-compose"
    local v1=$BED_CACHE/compose-v1/usr
    executable "$BED_CACHE/bin/docker-compose-v1" \
        "PYTHONPATH=$v1/lib/python3/dist-packages exec /usr/bin/python3 $v1/bin/docker-compose \"\$@\""
}

# with_libraries TREE PROGRAM: a command that runs it with the libraries that were unpacked beside it.
with_libraries() {
    local tree=$BED_CACHE/$1 library command
    library=$(uname -m)-linux-gnu
    command=$BED_CACHE/bin/$(basename "$2")
    executable "$command" "LD_LIBRARY_PATH=$tree/usr/lib/$library:$tree/lib/$library exec $tree/$2 \"\$@\""
}

# executable FILE LINE: a script of one line, put in place in one step, since somebody may be running it.
executable() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1.new"
    chmod +x "$1.new"
    mv "$1.new" "$1"
}
