//! Control-plane message types and codec of keyframed: [JSON-RPC 2.0](https://www.jsonrpc.org/specification), and
//! the frames that it travels in (ZMTP); no sockets. Daemon, ctl program and tests share it.
//!
//! One stricter rule than the specification: `params` go by name, so they are an object or absent.

#![forbid(unsafe_code)]
// What comes from outside must not end the program: see docs/reliability.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented,
        clippy::indexing_slicing
    )
)]

pub mod codec;
pub mod error;
pub mod message;
pub mod method;
pub mod openrpc;
pub mod params;
pub mod suggest;
pub mod types;
pub mod zmtp;

pub use codec::{Call, Incoming, parse_reply, parse_request};
pub use error::{ErrorObject, code};
pub use message::{Id, Notification, Params, Reply, Request, Response};
pub use method::Method;
