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
token=$(<"$data/controller/admin.token")

# A host that never comes: what is started waits for it, and nothing of what is made up here is ever run.
OPSC_ADDR=$base OPSC_TOKEN=$token OPSCTL_CONFIG=/dev/null "$BIN/opsctl" enroll-token create -o json >"$data/enroll.json"
OPSC_AGENT_DATA=$data/agent OPSC_AGENT_CONFIG=/dev/null "$BIN/opsconductor-agent" enroll --name fuzzed \
    --controller "127.0.0.1:$AGENT_PORT" \
    --token "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])' <"$data/enroll.json")" >/dev/null

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
cd "$WORK"
"$WORK/venv/bin/schemathesis" run "$WORK/openapi.json" --url "$base" --header "Authorization: Bearer $token" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing,stateful --max-examples "$EXAMPLES" --continue-on-failure --request-timeout 30 \
    --generation-database none --warnings off --no-color "${seed[@]}" "$@"

# What it was asked must not have hurt it.
curl --silent --fail --output /dev/null "$base/ready"
if grep -E 'panicked|a handler|ERROR' "$WORK/controller.log"; then
    echo "fuzz-api.sh: the controller complained, see above" >&2
    exit 1
fi
