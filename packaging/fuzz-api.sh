#!/bin/bash
# Sends what the OpenAPI document allows, and what it does not, to every operation of the API, and checks the answers:
# no 5xx, no status, content type or shape that the document does not name.
#
#   BIN=DIR fuzz-api.sh      DIR has the three programs; WORK (default: target/fuzz-api) keeps the venv
#
# EXAMPLES (default 100) is the number of requests for each operation and phase, SEED makes a run repeatable. A controller
# with a Postgres of its own is started in a new folder, and ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BIN=$(realpath "${BIN:?where are the programs?}")
WORK=$(realpath -m "${WORK:-target/fuzz-api}")
PORT=${PORT:-18380}
AGENT_PORT=${AGENT_PORT:-18343}
EXAMPLES=${EXAMPLES:-100}
VERSION=4.32.5
base=http://127.0.0.1:$PORT

mkdir -p "$WORK"
if [[ ! -x $WORK/venv/bin/schemathesis ]]; then
    python3 -m venv "$WORK/venv"
    "$WORK/venv/bin/pip" install --quiet "schemathesis==$VERSION"
fi

data=$(mktemp -d "${TMPDIR:-/tmp}/opsconductor-fuzz.XXXXXX")
chmod 755 "$data"
"$BIN/opsconductor-controller" --data "$data/controller" --http-listen "127.0.0.1:$PORT" \
    --agents-listen "127.0.0.1:$AGENT_PORT" >"$WORK/controller.log" 2>&1 &
controller=$!
clean_up() {
    kill "$controller" 2>/dev/null || true
    wait "$controller" 2>/dev/null || true
    rm -rf "$data"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((tries = 0; ; tries++)); do
    curl --silent --fail --output /dev/null "$base/ready" && break
    kill -0 "$controller" 2>/dev/null || { tail "$WORK/controller.log" >&2; exit 1; }
    ((tries < 600)) || { echo "fuzz-api.sh: the controller is not ready after a minute" >&2; exit 1; }
    sleep 0.1
done

# Nothing that this shell has configured for another controller counts here.
export OPSC_ADDR=$base OPSCTL_CONFIG=$data/contexts.toml OPSC_AGENT_CONFIG=/dev/null
unset OPSC_TOKEN
opsctl=$BIN/opsctl

# What FIELD... lead to in the JSON that comes in.
field() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda value, name: value[name], sys.argv[1:], json.load(sys.stdin)))' "$@"
}

# Who asks: a program with all rights, which can lose none of them by what it asks.
password='a password of who asks'
"$opsctl" --token-file "$data/controller/setup.token" setup --user administrator --password-file - <<<"$password"
"$opsctl" service-account create asker >/dev/null
"$opsctl" role bind administrator --service-account asker >/dev/null
"$opsctl" token create fuzz --service-account asker -o json >"$data/token.json"
token=$(field token <"$data/token.json")
# Somebody and something to be asked about, and what may go away.
for name in somebody leaver; do
    "$opsctl" user invite --role viewer -o json | field token >"$data/invitation"
    "$opsctl" accept-invitation --user "$name" --password-file - --token-file "$data/invitation" <<<"$password" >/dev/null
done
"$opsctl" group create people >/dev/null
# Hosts that never come: what is started waits for them, and nothing of what is made up here is ever run.
for name in fuzzed leaver; do
    "$opsctl" enroll-token create -o json | field token >"$data/enroll"
    "$BIN/opsconductor-agent" enroll --data "$data/$name" --name "$name" --controller "127.0.0.1:$AGENT_PORT" \
        --token-file "$data/enroll" >/dev/null
done
kept=(asker administrator somebody people fuzzed "$("$opsctl" agent show fuzzed -o json | field id)" "$(field id <"$data/token.json")")
mapfile -t -O "${#kept[@]}" kept < <("$opsctl" role bindings -o json |
    python3 -c 'import json, sys; [print(one["id"]) for one in json.load(sys.stdin)]')
# And a person, for what only a person can ask.
login() {
    curl --silent --fail --header 'Content-Type: application/json' \
        --data "{\"user\": \"administrator\", \"password\": \"$password\"}" "$base/api/v1/auth/login"
}

# A stream that is followed has no end to check.
curl --silent --fail "$base/openapi.json" | python3 -c '
import json, sys
document = json.load(sys.stdin)
for item in document["paths"].values():
    for operation in item.values():
        parameters = operation.get("parameters", [])
        operation["parameters"] = [p for p in parameters if p["name"] != "follow"]
        for p in operation["parameters"]:
            if p["name"] == "format" and "enum" in p["schema"]:
                p["schema"]["enum"] = [form for form in p["schema"]["enum"] if form != "sse"]
json.dump(document, sys.stdout)' >"$WORK/openapi.json"

seed=()
[[ -n ${SEED:-} ]] && seed=(--seed "$SEED")
export PYTHONPATH=$PWD/packaging PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=fuzz_hooks
# Asks as who has this token; all else is for schemathesis.
ask() {
    local token=$1
    shift
    local arguments=(
        "$WORK/openapi.json" --url "$base" --header "Authorization: Bearer $token" --header 'Connection: close'
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
        --phases examples,coverage,fuzzing,stateful --max-examples "$EXAMPLES" --continue-on-failure --request-timeout 30
        --generation-database none --warnings off --no-color "${seed[@]}" "$@"
    )
    # It leaves a folder where it is called.
    (cd "$WORK" && FUZZ_KEPT=${kept[*]} venv/bin/schemathesis run "${arguments[@]}")
}
whoami() {
    curl --silent --fail --header "Authorization: Bearer $1" "$base/api/v1/whoami"
}

before=$(whoami "$token")
failed=0
ask "$token" "$@" || failed=1
if [[ $(whoami "$token") != "$before" ]]; then
    echo "fuzz-api.sh: who asked has lost rights by it: most of it was not asked at all" >&2
    exit 1
fi
# Without the end of the session, which the program was refused.
login >"$data/session.json"
session=$(field access_token <"$data/session.json")
kept+=("$(curl --silent --fail --header "Authorization: Bearer $session" "$base/api/v1/auth/sessions" |
    python3 -c 'import json, sys; print(next(one["id"] for one in json.load(sys.stdin) if one["current"]))')")
ask "$session" --include-path-regex '^/api/v1/(auth/|organizations)' --exclude-operation-id logout "$@" || failed=1
whoami "$session" >/dev/null || { echo "fuzz-api.sh: the session has ended while it asked" >&2; exit 1; }

# What it was asked must not have hurt it.
curl --silent --fail --output /dev/null "$base/ready"
if grep -E 'panicked|a handler|ERROR' "$WORK/controller.log"; then
    echo "fuzz-api.sh: the controller complained, see above" >&2
    exit 1
fi
exit "$failed"
