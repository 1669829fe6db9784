#!/usr/bin/env bash
# The test figure drives an avatar that OBS fetches over SRT, from this machine or another.
#
#   pipelines/obs-srt.sh [PORT]
#
# In OBS: Sources > + > Media Source, untick "Local File",
# input "srt://ADDRESS:9000" (127.0.0.1 on the same machine), input format "mpegts", FFmpeg options "probesize=32".
set -euo pipefail
port=${1:-9000}
# shellcheck source=pipelines/env.sh
. "$(dirname "$0")/env.sh"
mapfile -t animate < <(animate)

exec gst-launch-1.0 -e denseposetestsrc is-live=true pattern="$PATTERN" num-buffers="$FRAMES" \
  ! video/x-raw,width=256,height=256,framerate=25/1 ! "${animate[@]}" ! video/x-raw,framerate=25/1 \
  ! queue ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=25 \
  ! h264parse config-interval=1 ! mpegtsmux alignment=7 ! srtsink uri="srt://:$port?mode=listener" wait-for-connection=false
