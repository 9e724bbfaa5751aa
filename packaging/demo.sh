#!/bin/bash
# A controller and some agents on this machine, and a command that runs on all of them.
#
# Called by `make demo`, which builds the programs and says with variables:
#   BIN         folder of the programs
#   DIR         folder of all that is kept; a second start goes on with what is there
#   HTTP_PORT   the API's port          AGENT_PORT  the agents' port          AGENTS  how many
#   ONCE        not empty: end when the command is done, with 0 only if all of it worked
#
# Whatever ends this script ends all that it started: the agents with their runs, then the controller with its Postgres.
# DIR stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${BIN:=target/release}" "${DIR:=.demo}" "${HTTP_PORT:=8080}" "${AGENT_PORT:=7443}" "${AGENTS:=3}" "${ONCE:=}"
readonly ROLES=(web db worker)
# Seconds that something may take before it counts as failed.
readonly START_WITHIN=60 STOP_WITHIN=30

say() {
    printf '\n== %s\n' "$*"
}

die() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

[[ $AGENTS =~ ^[0-9]+$ ]] && ((AGENTS >= 1 && AGENTS <= 100)) || die "AGENTS is '$AGENTS', not a number from 1 to 100"
for name in HTTP_PORT AGENT_PORT; do
    port=${!name}
    [[ $port =~ ^[0-9]+$ ]] && ((port >= 1 && port <= 65535)) || die "$name is '$port', not a port"
    if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port is in use; choose another: make demo $name=..."
    fi
done
[[ $HTTP_PORT != "$AGENT_PORT" ]] || die "HTTP_PORT and AGENT_PORT are both $HTTP_PORT"

mkdir -p "$DIR" || die "cannot make the folder '$DIR'"
DIR=$(cd "$DIR" && pwd -P)
BIN=$(cd "$BIN" && pwd -P)
mkdir -p "$DIR/logs" "$DIR/agents" || die "cannot write in '$DIR'"
chmod 700 "$DIR" || die "'$DIR' belongs to another user; choose another folder: make demo DIR=..."

# What this demo's hosts allow: all, so that every sandbox can be tried. Where none is named it is 'standard'.
if [[ ! -e $DIR/policy.toml ]]; then
    printf '[sandbox]\nunconfined = "all"\ncontainers = true\n' >"$DIR/policy.toml"
fi

# Nothing that this machine or this shell has configured for another controller counts here.
for name in "${!OPSC_@}"; do
    [[ $name == OPSC_PG_BIN ]] || unset "$name"
done
export OPSC_ADDR="http://127.0.0.1:$HTTP_PORT" OPSC_AGENT_CONFIG=/dev/null OPSC_AGENT_POLICY="$DIR/policy.toml"

opsctl() {
    OPSCTL_CONFIG="$DIR/contexts.toml" "$BIN/opsctl" --token-file "$DIR/admin.token" "$@"
}

declare -A pids=()

# Starts a program in a session of its own, so that a Ctrl-C in the terminal reaches only this script, which ends things
# in their order. Should this script be killed, the kernel tells the program to end.
start() {
    local name=$1
    shift
    setsid setpriv --pdeathsig TERM -- "$@" >>"$DIR/logs/$name.log" 2>&1 </dev/null &
    pids[$name]=$!
}

is_alive() {
    kill -0 "${pids[$1]}" 2>/dev/null
}

# Waits until the command holds; gives up when the time is over, or when the process $1 has ended.
wait_until() {
    local name=$1 what=$2 until=$((SECONDS + START_WITHIN))
    shift 2
    until "$@" >/dev/null 2>&1; do
        is_alive "$name" || fail "the $name has ended while it was waited for $what" "$name"
        ((SECONDS < until)) || fail "$what: not within $START_WITHIN s" "$name"
        pause
    done
}

pause() {
    sleep 0.05
}

fail() {
    printf '\nThe last lines of %s:\n' "$DIR/logs/$2.log" >&2
    tail -n 20 "$DIR/logs/$2.log" >&2 || true
    die "$1"
}

# Asks processes to end, and kills what does not.
stop() {
    local name until=$((SECONDS + STOP_WITHIN))
    for name in "$@"; do
        kill -TERM "${pids[$name]}" 2>/dev/null || true
    done
    for name in "$@"; do
        while is_alive "$name"; do
            if ((SECONDS >= until)); then
                printf 'demo: the %s does not end and is killed\n' "$name" >&2
                kill -KILL "${pids[$name]}" 2>/dev/null || true
            fi
            pause
        done
    done
}

# The shims of this demo's agents. Those of an agent that was killed have no other to end them.
shims() {
    local process arguments
    for process in /proc/[0-9]*; do
        mapfile -d '' arguments 2>/dev/null <"$process/cmdline" || continue
        if [[ ${arguments[1]:-} == shim && ${arguments[2]:-} == "$DIR/agents/"* ]]; then
            echo "${process#/proc/}"
        fi
    done
}

stop_shims() {
    local pid until=$((SECONDS + STOP_WITHIN))
    for pid in $(shims); do
        kill -TERM "$pid" 2>/dev/null || true
    done
    while [[ -n $(shims) ]] && ((SECONDS < until)); do
        pause
    done
}

end_all() {
    local status=$? name agents=()
    trap '' INT TERM HUP
    trap - EXIT
    if ((${#pids[@]} > 0)); then
        say "Ending the agents with their runs, then the controller"
        for name in "${!pids[@]}"; do
            [[ $name == controller ]] || agents+=("$name")
        done
        stop "${agents[@]}"
        stop_shims
        [[ -z ${pids[controller]:-} ]] || stop controller
        echo "Ended. What there was is kept in $DIR."
    fi
    exit "$status"
}
trap end_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

is_ready() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$HTTP_PORT" || return
    printf 'GET /ready HTTP/1.0\r\n\r\n' >&3
    read -r -t 5 status <&3 || status=
    exec 3>&-
    [[ $status == *' 200 '* ]]
}

# Makes the administrator with a random password, and an API token of that one's for all that follows. A start that finds the
# token goes on with it, also with one of a folder from before there were people; one that was cut off goes on with the
# password.
set_up() {
    local opsctl=(env "OPSCTL_CONFIG=$DIR/contexts.toml" "$BIN/opsctl")
    local as=(--user administrator --password-file "$DIR/admin.password")
    if [[ -s $DIR/admin.token ]] && opsctl auth whoami >/dev/null 2>&1; then
        return
    fi
    if [[ ! -s $DIR/admin.password ]]; then
        (umask 077 && head -c 24 /dev/urandom | base64 >"$DIR/admin.password")
    fi
    if [[ -e $DIR/setup.token ]]; then
        "${opsctl[@]}" --token-file "$DIR/setup.token" setup "${as[@]}" || die "the controller cannot be set up"
    else
        "${opsctl[@]}" login "${as[@]}" || die "the administrator of '$DIR' cannot log in"
    fi
    (umask 077 && "${opsctl[@]}" token create demo --ttl 365d -o json | only_token >"$DIR/admin.token.new") ||
        die "no API token can be made"
    mv "$DIR/admin.token.new" "$DIR/admin.token"
}

# The token of an answer.
only_token() {
    sed -n 's/^ *"token": "\([^"]*\)".*/\1/p'
}

is_online() {
    opsctl agent show "$1" -o json | grep -q '"state": "online"'
}

enroll() {
    local name=$1 role=$2 token
    # An enrollment that was cut off may have left an agent of this name.
    opsctl agent revoke "$name" >/dev/null 2>&1 || true
    token=$(opsctl enroll-token create --label "role=$role" --label env=demo -o json | only_token)
    "$BIN/opsconductor-agent" enroll --force --data "$DIR/agents/$name" --name "$name" \
        --controller "127.0.0.1:$AGENT_PORT" --token-file - <<<"$token"
}

say "Starting the controller, with a Postgres of its own, in $DIR"
controller=("$BIN/opsconductor-controller" --config /dev/null --data "$DIR"
    --http-listen "127.0.0.1:$HTTP_PORT" --agents-listen "127.0.0.1:$AGENT_PORT")
start controller "${controller[@]}"
wait_until controller "the controller is ready" is_ready
echo "It is ready at $OPSC_ADDR."
set_up

say "Enrolling and starting $AGENTS agents"
names=()
for ((i = 0; i < AGENTS; i++)); do
    role=${ROLES[i % ${#ROLES[@]}]}
    name=$role-$((i / ${#ROLES[@]} + 1))
    names+=("$name")
    if "$BIN/opsconductor-agent" status --data "$DIR/agents/$name" >/dev/null 2>&1; then
        echo "$name is enrolled already."
    else
        enroll "$name" "$role" >>"$DIR/logs/$name.log" 2>&1 || fail "$name cannot enroll" "$name"
        echo "$name has enrolled with a token and has its certificate."
    fi
    start "$name" "$BIN/opsconductor-agent" run --kill-jobs --data "$DIR/agents/$name"
done
for name in "${names[@]}"; do
    wait_until "$name" "the agent $name is online" is_online "$name"
done
opsctl agent list

readonly SELECTOR='env=demo and os=linux'
readonly LINE='for i in 1 2 3; do echo "line $i, written at $(date +%T.%3N)"; sleep 0.3; done'
say "Running a command on all of them; each line comes as it is written"
echo "\$ opsctl exec -l '$SELECTOR' --shell '$LINE'"
output=$DIR/logs/exec.out
(OPSCTL_CONFIG="$DIR/contexts.toml" setpriv --pdeathsig TERM -- "$BIN/opsctl" --token-file "$DIR/admin.token" \
    exec -l "$SELECTOR" --shell "$LINE" 2>&1 | tee "$output") &
pids[command]=$!
wait "${pids[command]}" || die "opsctl exec ended with $?"
unset 'pids[command]'

say "What is kept of it"
execution=$(sed -n 's/^opsctl: execution \([0-9a-f-]*\) on .*/\1/p' "$output")
echo "\$ opsctl execution show $execution"
opsctl execution show "$execution"
for name in "${names[@]}"; do
    lines=$(grep -c "^$name .*line [123], written at" "$output" || true)
    ((lines == 3)) || die "there are $lines lines of $name, not 3"
done
succeeded=$(opsctl execution show "$execution" -o json | grep -c '"state": "succeeded"' || true)
# The execution's own state, and that of each run.
((succeeded == AGENTS + 1)) || die "not everything has succeeded"

say "A job: saved as a version, planned, and rolled out in batches"
for words in "job apply -f examples/kernel-inventory.yaml" "job plan kernel-inventory --all" "run kernel-inventory --all"; do
    echo "\$ opsctl $words"
    # shellcheck disable=SC2086 # it is words
    opsctl $words || die "opsctl $words ended with $?"
done

if [[ -n $ONCE ]]; then
    say "All of it worked"
    exit 0
fi

say "It runs until Ctrl-C. Go on in another terminal:"
cat <<END
export PATH=$(printf %q "$BIN"):\$PATH
export OPSC_ADDR=$OPSC_ADDR OPSC_TOKEN=\$(cat $(printf %q "$DIR/admin.token"))

opsctl agent list
opsctl exec -l 'role=web' -- uptime
opsctl exec --all --shell 'for i in \$(seq 30); do echo \$i; sleep 1; done'
opsctl execution list

The API        $OPSC_ADDR/api/v1, its documentation $OPSC_ADDR/docs
The token      $DIR/admin.token
The programs   $BIN
The logs       $DIR/logs
END

# What is ended from outside (to see what survives it) is told, with the line that starts it again.
while ((${#pids[@]} > 0)); do
    # Without what bash itself says of a process that was killed.
    { wait -n "${pids[@]}" || true; } 2>/dev/null
    for name in "${!pids[@]}"; do
        is_alive "$name" && continue
        printf '\nThe %s has ended. To start it again:\n  ' "$name"
        if [[ $name == controller ]]; then
            printf '%q ' "${controller[@]}"
        else
            printf '%q ' env "OPSC_AGENT_CONFIG=$OPSC_AGENT_CONFIG" "OPSC_AGENT_POLICY=$OPSC_AGENT_POLICY" \
                "$BIN/opsconductor-agent" run --kill-jobs --data "$DIR/agents/$name"
        fi
        echo
        unset "pids[$name]"
    done
done
echo "Nothing runs any more."
