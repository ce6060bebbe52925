# Sourced by the scripts beside it: where things are, how they speak, and how a stage fails.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly venv=${USERPROXY_VENV:-$root/.venv} # tox sets it to the environment that it has made
export PATH=$venv/bin:$PATH
cd "$root" || exit

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

current_stage=""
stage_began=0

# Runs a function as a stage: says its name and its time; if it fails, so does the script, at once.
stage() { # NAME COMMAND...
    current_stage=$1
    stage_began=$SECONDS
    printf '\n== %s\n' "$current_stage" >&2
    "${@:2}" # not behind || or if: there bash would go on after a failed command
    printf '== %s: passed in %d s\n' "$current_stage" $((SECONDS - stage_began)) >&2
    current_stage=""
}

name_failed_stage() { # [EXIT-CODE]
    local code=${1:-$?}
    if ((code != 0)) && [[ -n $current_stage ]]; then
        printf '== %s: FAILED after %d s\n' "$current_stage" $((SECONDS - stage_began)) >&2
    fi
    exit "$code"
}
trap name_failed_stage EXIT

# Runs the stages whose names are given, or all of them: a stage is a function of that name.
run_stages() { # ALL-STAGES... -- [NAME...]
    local -a known=() wanted=()
    while [[ $1 != -- ]]; do known+=("$1"); shift; done
    shift
    wanted=("$@")
    ((${#wanted[@]})) || wanted=("${known[@]}")
    local name
    for name in "${wanted[@]}"; do
        [[ " ${known[*]} " == *" $name "* ]] || { say "no stage ${name@Q}; there are: ${known[*]}"; exit 2; }
    done
    for name in "${wanted[@]}"; do stage "$name" "$name"; done
}

need_tool() { # PROGRAM...
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || die "$program is not installed: run scripts/install --dev first"
    done
}

need_root() { # WHY
    ((EUID == 0)) || die "needs root $1: sudo $0"
}
