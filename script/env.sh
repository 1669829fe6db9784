# Sourced by the other scripts: where the repository and the caches are.
# shellcheck shell=bash

KEYFRAMED_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KEYFRAMED_CACHE_DIR=${KEYFRAMED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keyframed}

# rustup installs here and tells only login shells about it.
case ":$PATH:" in
  *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
  *) PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" ;;
esac
export PATH

# glibc returns every large tensor to the kernel and faults it in again; with
# these libtorch keeps its memory (the program sets the same for itself).
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-268435456}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-1073741824}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-67108864}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# as_root COMMAND...: with sudo where we are not root.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root and there is no sudo; run as root: $*"
  fi
}

# apt_packages NAME...: installs those that are missing.
apt_packages() {
  local missing=()
  mapfile -t missing < <(comm -23 <(printf '%s\n' "$@" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Abbrev}${binary:Package}\n' 2>/dev/null | sed -n 's/^ii *//p' | sed 's/:.*//' | sort -u))
  [ "${#missing[@]}" = 0 ] && return
  say "installing ${missing[*]}"
  as_root apt-get update -q >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 </dev/null ||
    die "apt-get could not install: ${missing[*]}"
}
