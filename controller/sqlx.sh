#!/bin/bash
# The metadata of the controller's queries (controller/.sqlx), by which a clone builds without a database.
#
#   sqlx.sh prepare   writes it anew
#   sqlx.sh check     fails when what is committed is not what the queries and the schema give
#
# A throwaway Postgres gets the migrations; then the query macros, compiled against it, write what they learn into the
# folder that SQLX_OFFLINE_DIR names. What they learn depends a little on the server's major version: use the same one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

verb=${1:-}
[[ $verb == prepare || $verb == check ]] || { echo "usage: $0 prepare|check" >&2; exit 2; }

# The newest server programs, or those in OPSC_PG_BIN.
find_postgres() {
    local folder
    for folder in "${OPSC_PG_BIN:-}" $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV); do
        [[ -x $folder/initdb ]] && echo "$folder" && return
    done
    dirname "$(command -v initdb)"
}

bin=$(find_postgres) || { echo "sqlx.sh: no Postgres server was found; run: make setup" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/opsconductor-sqlx.XXXXXX")

# A Postgres server refuses to run as root.
as_server=()
if ((EUID == 0)); then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$work"
    as_server=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
fi
server() {
    (cd / && "${as_server[@]}" "$bin/pg_ctl" -D "$work/data" -s "$@")
}
clean_up() {
    if [[ -e $work/data/postmaster.pid ]]; then
        server -m immediate stop
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

(cd / && "${as_server[@]}" "$bin/initdb" -N -D "$work/data" -U postgres -A trust --no-locale -E UTF8 >/dev/null)
server -w -l "$work/data/log" -o "-c listen_addresses='' -c unix_socket_directories='$work' -c fsync=off" start
for migration in controller/migrations/*.sql; do
    "$bin/psql" -h "$work" -U postgres -d postgres -q -X -1 -v ON_ERROR_STOP=1 -f "$migration"
done

fresh=$work/metadata
mkdir "$fresh"
# A check goes with the tests, and compiles as they do; metadata may be wanted while other crates do not compile.
packages=(-p opsconductor-controller)
[[ $verb == prepare ]] || packages=(--workspace)
# Without this cargo would take the crate for compiled and no macro would run.
touch controller/src/main.rs
DATABASE_URL="postgres:///postgres?host=$work&user=postgres" SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh \
    cargo check "${packages[@]}" --all-targets --locked

count=$(find "$fresh" -name 'query-*.json' | wc -l)
if ((count == 0)); then
    echo "sqlx.sh: no query wrote any metadata" >&2
    exit 1
fi
if [[ $verb == prepare ]]; then
    rm -rf controller/.sqlx
    cp -r "$fresh" controller/.sqlx
    echo "controller/.sqlx: metadata of $count queries"
elif diff -r controller/.sqlx "$fresh"; then
    echo "controller/.sqlx: the metadata of $count queries is up to date"
else
    echo "sqlx.sh: controller/.sqlx is not that of the queries and the schema; run: make sqlx-prepare" >&2
    exit 1
fi
