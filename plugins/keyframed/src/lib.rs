//! GStreamer plugin of keyframed.
