#!/bin/sh
# A new user's path in a fresh virtual environment, timed: install, check, train, predict, report.
#
#     scripts/new_user.sh [FOLDER_OF_PHOTOS] [STEPS]
#
# Without a folder it makes a small synthetic one. PYTHON names the interpreter; PIP_ARGS goes to pip, as in
# PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".
set -eu
source_root=$(cd "$(dirname "$0")/.." && pwd)
photos=${1:+$(cd "$1" && pwd)}
steps=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

began=$(date +%s)
step() {
    before=$(date +%s)
    echo "\$ $*"
    "$@"
    echo "  [$(($(date +%s) - before)) s]"
}

step "${PYTHON:-python3}" -m venv venv
# shellcheck disable=SC2086
step venv/bin/pip install --quiet ${PIP_ARGS:-} "$source_root"
PATH=$work/venv/bin:$PATH
if [ -z "$photos" ]; then
    step tagmask data make cooccur -o photos --images 60 --size 64
    photos=photos
fi

ready=$(date +%s)
step tagmask data check "$photos"
step tagmask train "$photos" -o run ${steps:+--set "training.steps=$steps"}
step tagmask predict run "$photos" -o masks
ended=$(date +%s)
step tagmask report run

echo "masks: $(find masks -name '*.png' | wc -l)"
echo "install $((ready - began)) s, from folder to masks $((ended - ready)) s"
