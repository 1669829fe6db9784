# Sourced by the pipelines: finds the plugin that `cargo build --release` made.
# shellcheck shell=bash
#
#   FRAMES=N      stop after N pose frames (default: never)
#   PATTERN=NAME  what the test figure does: walk, dance, wave, spin, still
#   REFERENCE=F   picture to animate (default: the first avatar of the embedded model)
#   MODEL=DIR     another model
#   ANIMATE=...   more properties of avataranimate, such as ANIMATE="steps=2 lambda=0.02"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-${CARGO_TARGET_DIR:-$here/target}/release}
FRAMES=${FRAMES:--1} PATTERN=${PATTERN:-dance}
if [ -z "${REFERENCE:-}" ]; then
  REFERENCE=$(find "$here/models/mini/avatars" -name '*.png' | sort | head -n 1)
fi

# animate [PROPERTY=VALUE...]: the words that put avataranimate into a pipeline.
# shellcheck disable=SC2086
animate() { printf '%s\n' avataranimate "reference=$REFERENCE" ${MODEL:+"model=$MODEL"} ${ANIMATE:-} "$@"; }
