#!/bin/bash
# Starts the agent of a container, which enrolls first where it has no identity yet.
#   CONTROLLER  HOST:PORT of the agents' door
#   TOKEN_FILE  file with the enroll token, which may come later than this container
#   AGENT_NAME  name of the agent (default: the container's host name)
set -euo pipefail

if ! opsconductor-agent status >/dev/null 2>&1; then
    until [[ -s $TOKEN_FILE ]]; do
        sleep 0.5
    done
    opsconductor-agent enroll --controller "$CONTROLLER" --name "${AGENT_NAME:-$(hostname)}" --token-file "$TOKEN_FILE"
fi
exec opsconductor-agent run
