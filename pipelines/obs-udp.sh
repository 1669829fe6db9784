#!/usr/bin/env bash
# The test figure drives an avatar that OBS shows, over UDP on the same machine.
#
#   pipelines/obs-udp.sh [PORT]
#
# In OBS: Sources > + > Media Source, untick "Local File",
# input "udp://127.0.0.1:5600", input format "mpegts", FFmpeg options "probesize=32".
set -euo pipefail
port=${1:-5600}
# shellcheck source=pipelines/env.sh
. "$(dirname "$0")/env.sh"
mapfile -t animate < <(animate)

# A key frame every second and the parameter sets with each: OBS may join at any time.
exec gst-launch-1.0 -e denseposetestsrc is-live=true pattern="$PATTERN" num-buffers="$FRAMES" \
  ! video/x-raw,width=256,height=256,framerate=25/1 ! "${animate[@]}" ! video/x-raw,framerate=25/1 \
  ! queue ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=25 \
  ! h264parse config-interval=1 ! mpegtsmux alignment=7 ! udpsink host=127.0.0.1 port="$port"
