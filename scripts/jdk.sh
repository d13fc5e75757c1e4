#!/usr/bin/env bash
# Make sure there is a JDK 17 or newer: install it where that is possible without asking, else say what to install.
set -euo pipefail
exec </dev/null

major() { "$1" -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p' | head -n 1; }

for javac in "${JAVA_HOME:+$JAVA_HOME/bin/javac}" javac; do
  [ -n "$javac" ] && command -v "$javac" >/dev/null || continue
  version="$(major "$javac")"
  [ "${version:-0}" -ge 17 ] && exit 0
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "setup: installing OpenJDK 17" >&2
  mkdir -p /usr/share/man/man1 # missing in slim images, and the package's set-up script wants it
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jdk-headless >/dev/null
  command -v javac >/dev/null && exit 0
fi
echo "setup: need a JDK 17 or newer (Debian, Ubuntu: apt-get install openjdk-17-jdk-headless), or JAVA_HOME set to one" >&2
exit 1
