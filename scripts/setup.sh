#!/usr/bin/env bash
# Make the virtual environment: pinned dependencies, the Java part, the package itself. Safe to run again.
# PYTHON: interpreter to use (default: python3.11, else python3). VENV: where to (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

venv="${VENV:-.venv}"
constraints=constraints/py311.txt

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3}; do
    if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  stop "need Python 3.11 or newer (Debian 12: apt-get install python3 python3-venv)"
}

python="$(find_python)"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-venv"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  else
    stop "need Python's venv module (Debian: apt-get install python3-venv)"
  fi
fi

scripts/jdk.sh

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  say "creating $venv"
  "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input "$@"; }

# The binding for TPMs is built from source, which takes a minute, so that goes on beside the rest. Who has no
# libtss2-dev goes without: TPM evidence is verified all the same, only not collected, and its tests are skipped.
wheels="$(mktemp -d)"
tpm_build=
trap 'if [ -n "$tpm_build" ]; then kill "$tpm_build" 2>/dev/null || true; wait "$tpm_build" 2>/dev/null || true; fi; rm -rf "$wheels"' EXIT
if "$venv/bin/python" -c 'import tpm2_pytss' 2>/dev/null; then
  : # there already
elif command -v gcc >/dev/null && pkg-config --exists tss2-esys tss2-tctildr 2>/dev/null; then
  pip wheel -c "$constraints" --no-deps --wheel-dir "$wheels" tpm2-pytss >"$wheels/log" 2>&1 &
  tpm_build=$!
else
  say "no libtss2-dev, pkg-config or gcc: going without the extra \`tpm\` (optional)"
fi

say "installing build tools"
pip install -c "$constraints" setuptools hatchling editables build
say "installing PySpark (about 450 MB when it is not cached)"
pip install -c "$constraints" --no-build-isolation 'pyspark==4.3.0'
say "installing Casemate and its dependencies"
pip install -c "$constraints" --no-build-isolation -e '.[dev,docs]'
if [ -n "$tpm_build" ]; then
  say "installing tpm2-pytss"
  if wait "$tpm_build"; then
    pip install -c "$constraints" "$wheels"/tpm2_pytss-*.whl
  else
    say "tpm2-pytss could not be built, going without the extra \`tpm\` (optional): $(tail -n 1 "$wheels/log")"
  fi
  tpm_build=
fi
say "ready: $("$venv/bin/casemate" --version) in $venv"
