#!/bin/bash
# Builds the agent and the controller with lines that are wrong on purpose, and lets the chaos find each: first none of
# them (nothing may be found), then one after the other, each with the invariant that it has to violate.
# Argument: cargo's target folder.
set -euo pipefail

features=opsconductor-agent/mutants,opsconductor-controller/mutants
cargo build --workspace --locked --features "$features"
# The next build of anything else must not be a mutant's.
trap 'cargo build --workspace --locked' EXIT
folder=$(mktemp -d "${TMPDIR:-/tmp}/opsconductor-mutants.XXXXXX")

# mutant, invariant, seconds, faults and runs a second
chaos() {
    echo "mutant ${1:-none}:"
    local out=$folder/${1:-none}.txt
    OPSC_MUTANT=$1 "$TARGET/debug/opsconductor-chaos" --seconds "$3" --agents 5 --faults-per-second "$4" \
        --runs-per-second "$5" --folder "$folder/${1:-none}" >"$out" || true
    grep -E '^VIOLATION' "$out" | cut -c1-160 | head -3 || true
    tail -1 "$out"
    if [[ -z $2 ]]; then
        grep -q ' violations=0$' "$out"
    else
        grep -qE "^VIOLATION $2" "$out"
    fi
}

TARGET=$1
failed=0
for row in '::30:2:12' 'fence_ignored:no-forged-start:40:2:12' 'flush_skipped:(result-kept|one-start):120:4:40' \
    'chunk_dropped:whole-output:20:2:12' 'kill_reported_early:confirmed-kill:30:2:15'; do
    IFS=: read -r mutant invariant seconds faults runs <<<"$row"
    if chaos "$mutant" "$invariant" "$seconds" "$faults" "$runs"; then
        echo "  as it should be"
    else
        echo "  NOT as it should be; see $folder"
        failed=1
    fi
done
[[ $failed -eq 0 ]] && rm -rf "$folder"
exit "$failed"
