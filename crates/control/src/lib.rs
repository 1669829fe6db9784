//! Control-plane message types and codec; no sockets.
