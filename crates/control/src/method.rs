//! The methods that the daemon knows.

use std::{fmt, str::FromStr};

use crate::error::ErrorObject;

macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A method of the control plane.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Method {
            /// All methods.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it does, in one sentence.
            pub fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

methods! {
    /// State and counters.
    Status = "status",
    /// Settings of the running pipeline.
    ParamsGet = "params.get",
    /// Changes settings, by name: `{"lambda": 0.01}`.
    ParamsSet = "params.set",
    /// Changes the reference picture: `{"name": …}` or `{"path": …}` inside the gallery.
    ReferenceSet = "reference.set",
    /// The gallery.
    ReferenceList = "reference.list",
    /// Configured pipelines.
    PipelineList = "pipeline.list",
    /// Changes to another configured pipeline.
    PipelineSwitch = "pipeline.switch",
    /// Stops generating; the output goes on with the last picture.
    Pause = "pause",
    /// Ends a pause.
    Resume = "resume",
    /// The present output picture.
    Snapshot = "snapshot",
    /// Reads the configuration again.
    Reload = "reload",
    /// Ends the daemon.
    Shutdown = "shutdown",
    /// Describes these methods.
    Discover = "rpc.discover",
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = ErrorObject;

    fn from_str(name: &str) -> Result<Self, ErrorObject> {
        Self::ALL
            .iter()
            .copied()
            .find(|m| m.name() == name)
            .ok_or_else(|| ErrorObject::method_not_found(name))
    }
}
