#!/bin/bash
# Installs what the build, the tests and the demo need and this machine does not have, from Debian's packages.
#
# Looks before it asks apt for anything: where nothing is missing it costs nothing and needs no network and no rights.
# With the argument `tests`, `bench` or `fuzz` also what only these need.
# No Postgres cluster is created or started: the project runs the server's programs by itself.
set -euo pipefail

die() {
    echo "setup: $*" >&2
    exit 1
}

# The programs of a Postgres server, as the controller finds them.
has_postgres() {
    local program
    for program in "${OPSC_PG_BIN:-}/initdb" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
        [[ -x $program ]] && return
    done
    command -v initdb >/dev/null
}

command -v cargo >/dev/null || die "cargo is missing: install Rust 1.95 or later (https://rustup.rs)"

packages=()
command -v cc >/dev/null || packages+=(gcc)
[[ -e /usr/include/stdlib.h ]] || packages+=(libc6-dev)
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
has_postgres || packages+=(postgresql)
if [[ ${1:-} == tests ]]; then
    # Other clocks, and hosts of the tests' own.
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=(libfaketime)
    command -v ip >/dev/null || packages+=(iproute2)
    # A container engine, and what an image of one program is made from.
    command -v podman >/dev/null || packages+=(podman)
    [[ -x /usr/sbin/runc || -x /usr/bin/runc ]] || packages+=(runc)
    [[ -x /usr/bin/catatonit ]] || packages+=(catatonit)
    [[ -x /usr/lib/podman/netavark ]] || packages+=(netavark)
    command -v iptables >/dev/null || packages+=(iptables)
    [[ -x /bin/busybox ]] || packages+=(busybox-static)
fi
if [[ ${1:-} == bench ]]; then
    # What the sandbox is held against.
    command -v bwrap >/dev/null || packages+=(bubblewrap)
fi
if [[ ${1:-} == fuzz ]]; then
    command -v curl >/dev/null || packages+=(curl)
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
fi
if ((${#packages[@]} == 0)); then
    exit
fi

command -v apt-get >/dev/null || die "missing here, and there is no apt-get to install it: ${packages[*]}"
sudo=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || die "to be installed as root: apt-get install ${packages[*]}"
    sudo=(sudo)
fi

echo "setup: installing ${packages[*]}"
install() {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}
"${sudo[@]}" apt-get update -q
if [[ " ${packages[*]} " == *' postgresql '* ]]; then
    # The package would create a cluster and start it. What says so is as it was when we are done.
    settings=/etc/postgresql-common/createcluster.conf
    install postgresql-common
    "${sudo[@]}" cp -p "$settings" "$settings.before-opsconductor"
    trap '"${sudo[@]}" mv -f "$settings.before-opsconductor" "$settings"' EXIT
    echo 'create_main_cluster = false' | "${sudo[@]}" tee -a "$settings" >/dev/null
fi
install "${packages[@]}"
