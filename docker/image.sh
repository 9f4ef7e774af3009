#!/usr/bin/env bash
# Builds the images `fedemu` and `fedemu-prometheus` where none can be pulled: on Debian by debootstrap, with packages
# from wheels that pip brings here. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
base="${FEDEMU_BASE:-fedemu-base}"
python=.venv/bin/python

[ -n "${FEDEMU_BASE:-}" ] || docker/base.sh "$base"
version="$(docker run --rm --entrypoint python3 "$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
wanted="$("$python" -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'])")"
stamp="$(sha256sum constraints.txt - <<< "$version $wanted")"
if [ "$stamp" != "$(cat build/wheels.stamp 2> /dev/null)" ]; then
    rm -rf build/wheels
    # shellcheck disable=SC2086
    "$python" -m pip download -qq --dest build/wheels --only-binary=:all: --python-version "$version" \
        --constraint constraints.txt $wanted 'setuptools>=77' wheel
    echo "$stamp" > build/wheels.stamp
fi

# BuildKit takes a third of the time; some command-line clients need a plugin for it, others have it
client=docker
export DOCKER_BUILDKIT=0
while read -r one; do
    if DOCKER_BUILDKIT=1 "$one" build --help > /dev/null 2>&1; then
        client="$one" DOCKER_BUILDKIT=1
        break
    fi
done < <(type -ap docker)
build() {
    "$client" build --build-arg BASE="$base" "$@" > build/image.log 2>&1 || {
        tail -n 30 build/image.log >&2
        exit 1
    }
}
build --file docker/prometheus/Dockerfile --tag fedemu-prometheus docker/prometheus
build --file docker/Dockerfile --tag fedemu .
