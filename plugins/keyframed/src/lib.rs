//! GStreamer plugin of keyframed: a DensePose stream drives a still picture.
//!
//! ```text
//! denseposetestsrc ─► keyposeselect ─► lcmanimate ─► filminterpolate ─► any sink
//!                     └──────────────── avataranimate ─────────────┘
//! ```
//!
//! All elements speak RGB video in system memory. They are thin shells around `keyframed-engine`
//! (selection, pacing) and `keyframed-models` (networks, feature `torch`); registration touches neither.

// What comes from outside must not end the program: see docs/reliability.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented
    )
)]

use std::sync::OnceLock;

use gst::glib;

// What all tests share calls this crate by its name.
#[cfg(test)]
extern crate self as gstkeyframed;

pub mod avataranimate;
pub mod denseposetestsrc;
mod fault;
pub mod filminterpolate;
mod filter;
pub mod keyposeselect;
pub mod lcmanimate;

mod load;
mod loading;
mod models;
mod params;
pub mod picture;
mod priority;
mod reference;
mod video;

/// Makes the elements known to this process, for programs that link this crate instead of loading the library. Asked
/// again, it does nothing: GStreamer would throw the first registration away while elements still use it.
///
/// # Errors
/// If GStreamer is not initialised or refuses the plugin.
pub fn plugin_register_static() -> Result<(), glib::BoolError> {
    static REGISTERED: OnceLock<Result<(), glib::BoolError>> = OnceLock::new();
    REGISTERED.get_or_init(define::plugin_register_static).clone()
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    denseposetestsrc::register(plugin)?;
    keyposeselect::register(plugin)?;
    lcmanimate::register(plugin)?;
    filminterpolate::register(plugin)?;
    avataranimate::register(plugin)?;
    Ok(())
}

// A module of its own: what the macro makes cannot be documented.
mod define {
    use super::plugin_init;

    gst::plugin_define!(
        keyframed,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "MIT/X11",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY")
    );
}
