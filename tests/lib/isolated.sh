#!/usr/bin/env bash
# tests/lib/isolated.sh COMMAND...: runs a command in a network of its own, where it may make further networks (`ip netns`),
# shape and lose. Nothing of it is seen outside, and it is gone when the command ends. Root is not needed.
set -euo pipefail
# Where Debian has `ip`.
PATH=$PATH:/usr/sbin:/sbin

if [ "${1:-}" = --inside ]; then
  shift
  # Where `ip netns` keeps its names.
  mount -t tmpfs tmpfs /run
  ip link set lo up
  exec "$@"
fi

rootless=()
[ "$(id -u)" = 0 ] || rootless=(--user --map-root-user)
exec unshare "${rootless[@]}" --net --mount "$0" --inside "$@"
