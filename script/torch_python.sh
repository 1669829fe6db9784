# shellcheck shell=bash
# For scripts that run MagicAnimate's own code. Sourced after env.sh.

# The versions that the original needs, and the PyTorch that keyframed links.
REQUIREMENTS=(torch==2.11.0 diffusers==0.21.4 transformers==4.35.2
  huggingface-hub==0.17.3 einops==0.6.1 'numpy<2' safetensors)

# Prints a Python that has them, made the first time.
make_python() {
  local venv=$KEYFRAMED_CACHE_DIR/bench-pytorch
  if [ ! -f "$venv/complete" ] || [ "$(<"$venv/complete")" != "${REQUIREMENTS[*]}" ]; then
    say "installing PyTorch and diffusers into $venv"
    python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' ||
      die "Python 3.11 or 3.12 is needed, this is $(python3 --version)"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 cannot make a virtual environment; on Debian: apt-get install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${REQUIREMENTS[@]}" >&2 ||
      die "pip could not install: ${REQUIREMENTS[*]}"
    printf '%s' "${REQUIREMENTS[*]}" >"$venv/complete"
  fi
  printf '%s' "$venv/bin/python"
}

# check_original DIR: it is a checkout of MagicAnimate.
check_original() {
  [ -n "$1" ] || die "--magic-animate DIR is missing: a checkout of MagicAnimate"
  [ -f "$1/magicanimate/models/unet_controlnet.py" ] ||
    die "$1 holds no magicanimate/models: not a checkout of MagicAnimate"
}

# built FILE: where cargo puts it.
built() { printf '%s' "$(cd "$KEYFRAMED_ROOT" && cargo metadata --format-version 1 --no-deps --offline |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/$1"; }

# transformers wants a folder for what it downloads, though it downloads nothing here.
offline_python() {
  export HF_HOME=$KEYFRAMED_CACHE_DIR/bench-pytorch-hf HF_HUB_OFFLINE=1
  export DIFFUSERS_VERBOSITY=error TRANSFORMERS_VERBOSITY=error PYTHONDONTWRITEBYTECODE=1
}
