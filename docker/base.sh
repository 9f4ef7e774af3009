#!/usr/bin/env bash
# Makes a small Debian image with Python, for where no image can be pulled: docker/base.sh NAME. Needs root and debootstrap.
set -euo pipefail
name="${1:-fedemu-base}"
suite=bookworm # Python 3.11

if docker image inspect "$name" > /dev/null 2>&1; then
    exit 0
fi
root="$(mktemp -d)"
chmod 755 "$root" # the image's / has it
trap 'rm -rf "$root"' EXIT
if ! debootstrap --variant=minbase --include=python3,python3-venv "$suite" "$root" > "$root.log" 2>&1; then
    tail -n 20 "$root.log" >&2
    exit 1
fi
rm "$root.log"
# what nothing reads in a container
tar --create --directory "$root" --numeric-owner \
    --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' --exclude='./tmp/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/info/*' \
    --exclude='./usr/share/locale/*' --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' . |
    docker import --change 'CMD ["bash"]' - "$name" > /dev/null
