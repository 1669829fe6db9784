//! Stages 1, 3 (light rungs) and 4 of keyframed: no GStreamer, no libtorch.
