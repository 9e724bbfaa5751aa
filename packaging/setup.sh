#!/bin/bash
# Installs what the build, the tests and the demo need and this machine does not have, from Debian's packages; and for the
# tests an OpenID provider, from Python's, in the target folder.
#
# Looks before it asks apt for anything: where nothing is missing it costs nothing and needs no network and no rights.
# With the argument `tests`, `bench` or `fuzz` also what only these need.
# No Postgres cluster is created or started: the project runs the server's programs by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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

# A Python that can make environments, and is new enough for the OpenID provider.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        echo "$python"
        return
    done
    return 1
}

install() {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Installs $packages.
install_packages() {
    command -v apt-get >/dev/null || die "missing here, and there is no apt-get to install it: ${packages[*]}"
    sudo=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "to be installed as root: apt-get install ${packages[*]}"
        sudo=(sudo)
    fi

    echo "setup: installing ${packages[*]}"
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
}

# Installs the OpenID provider beside what is built, in an environment of its own.
install_openid() {
    local folder=${CARGO_TARGET_DIR:-target}/openid wanted=tests/openid/requirements.txt python
    # The copy of the list is made last: where it is, the environment is whole.
    if cmp -s "$wanted" "$folder/requirements.txt" && "$folder/venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    python=$(find_python) || die "Python 3.11 or later is missing, or its module ensurepip"
    echo "setup: installing an OpenID provider in $folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    "$python" -m venv "$folder/venv"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --requirement "$wanted"
    # The list names everything.
    "$python" -m pip check --disable-pip-version-check >/dev/null
    cp "$wanted" "$folder/requirements.txt"
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
    # What the examples use.
    command -v openssl >/dev/null || packages+=(openssl)
    command -v curl >/dev/null || packages+=(curl)
    # What the OpenID provider is written in.
    find_python >/dev/null || packages+=(python3-venv)
fi
if [[ ${1:-} == bench ]]; then
    # What the sandbox is held against.
    command -v bwrap >/dev/null || packages+=(bubblewrap)
fi
if [[ ${1:-} == fuzz ]]; then
    command -v curl >/dev/null || packages+=(curl)
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
fi

((${#packages[@]} == 0)) || install_packages
[[ ${1:-} != tests ]] || install_openid
