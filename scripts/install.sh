#!/bin/sh
# Install into a virtual environment, by uv where it can be had, else by pip: scripts/install.sh .venv -e '.[dev]'
#
# uv unpacks packages side by side, and leaves compiling to bytecode to the first start, which needs a few of them.
set -eu
python=$1/bin/python
shift
pip="$python -m pip --disable-pip-version-check"
index=${PIP_INDEX_URL:-$($pip config get global.index-url 2>/dev/null || true)}
if $pip install --quiet uv 2>/dev/null &&
    "$python" -m uv pip install --quiet --python "$python" ${index:+--default-index "$index"} "$@"; then
    exit 0
fi
echo "install: without uv, by pip" >&2
exec $pip install --quiet "$@"
