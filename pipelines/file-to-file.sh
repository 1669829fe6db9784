#!/usr/bin/env bash
# A DensePose clip and a picture become a video, with elements alone.
#
#   pipelines/file-to-file.sh CLIP.mp4 PICTURE.png OUT.mp4
set -euo pipefail
[ "$#" = 3 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
clip=$1 REFERENCE=$2 out=$3
# shellcheck source=pipelines/env.sh
. "$(dirname "$0")/env.sh"
mapfile -t animate < <(animate)

exec gst-launch-1.0 -e filesrc location="$clip" ! decodebin ! queue ! videoconvert \
  ! "${animate[@]}" ! video/x-raw,framerate=25/1 \
  ! queue ! videoconvert ! video/x-raw,format=I420 ! x264enc ! h264parse ! mp4mux ! filesink location="$out"
