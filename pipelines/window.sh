#!/usr/bin/env bash
# The test figure drives an avatar in a window.
#
#   pipelines/window.sh
#   SINK=fakesink pipelines/window.sh    without a screen
set -euo pipefail
# shellcheck source=pipelines/env.sh
. "$(dirname "$0")/env.sh"
mapfile -t animate < <(animate)

exec gst-launch-1.0 -e denseposetestsrc is-live=true pattern="$PATTERN" num-buffers="$FRAMES" \
  ! video/x-raw,width=256,height=256,framerate=25/1 ! "${animate[@]}" ! video/x-raw,framerate=25/1 \
  ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! videoconvert ! "${SINK:-autovideosink}"
