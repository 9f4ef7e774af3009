#!/usr/bin/env bash
# Sees to it that a Docker engine runs here, with docker-compose and debootstrap: on Debian, as root. Says why
# where that cannot be, and fails.
set -euo pipefail

give_up() {
    echo "no containers: $*" >&2
    exit 1
}

wanted=()
docker info > /dev/null 2>&1 || command -v dockerd > /dev/null || wanted+=(docker.io)
command -v docker-compose > /dev/null || docker compose version > /dev/null 2>&1 || wanted+=(docker-compose)
command -v debootstrap > /dev/null || wanted+=(debootstrap)
if [ ${#wanted[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || give_up "${wanted[*]} not installed, and only root can"
    command -v apt-get > /dev/null || give_up "${wanted[*]} not installed, and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install --yes --no-install-recommends "${wanted[@]}"; } > /dev/null 2>&1 ||
        give_up "${wanted[*]} could not be installed"
fi
docker info > /dev/null 2>&1 && exit 0
[ "$(id -u)" = 0 ] || give_up "no Docker engine answers, and only root can start one"
log=/var/log/dockerd.log
setsid dockerd < /dev/null > "$log" 2>&1 &
for _ in $(seq 60); do
    sleep 0.5
    docker info > /dev/null 2>&1 && exit 0
done
give_up "the Docker engine does not start: $(grep -v 'level=info' "$log" | tail -n 1)"
