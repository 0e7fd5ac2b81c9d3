# What .ci/run and .ci/full share: a work directory, fresh copies, fresh environments, headlines.
#
# Rules of this file: it is sourced by bash with `set -euo pipefail`. Everything is created under $WORK,
# which is removed at the end. The repository itself is only read, so a run neither needs nor disturbs
# what has been built there.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}

# Some of the programs that the tests run are in sbin directories.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

WORK=$(mktemp -d "${TMPDIR:-/tmp}/fastlisten-ci.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

# pip reports only errors, and never asks.
export PIP_QUIET=2 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The caller's settings must not reach the tests.
unset PYTHONPATH PYTHONHOME XDG_DATA_HOME STATE_DIRECTORY
unset FASTLISTEN_PURE FASTLISTEN_ENGINE FASTLISTEN_DEBUG FASTLISTEN_SANITIZE

# The tracked files as they are in the work tree, so that a run before a commit tests what will be committed.
tracked_files() {
    git -C "$ROOT" ls-files -z | while IFS= read -r -d '' file; do
        if [[ -e $ROOT/$file ]]; then printf '%s\0' "$file"; fi
    done
}

# fresh_copy NAME: copy the tracked files to $WORK/NAME and change to it.
fresh_copy() {
    mkdir "$WORK/$1"
    tracked_files | tar -C "$ROOT" --null -T - -cf - | tar -C "$WORK/$1" -xf -
    cd "$WORK/$1"
}

# fresh_environment NAME [PYTHON]: create a virtual environment in $WORK/NAME, put it first in PATH.
fresh_environment() {
    "${2:-$PYTHON}" -m venv "$WORK/$1"
    PATH=$WORK/$1/bin:$PATH
    python -m pip install --upgrade 'pip>=25.1' # the first version with dependency groups
}

# headline TEXT
headline() {
    printf '\n== %s ==\n' "$1"
}
