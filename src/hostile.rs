//! Where input from outside is read, for the targets in `fuzz/`.

use std::path::Path;

use crate::config;

/// Reads a configuration as if it lay in an empty folder of a user without a home: whether it holds.
pub fn config(text: &str) -> bool {
    let environment = config::places::Environment::default();
    match config::parse(text, Some(Path::new("/nonexistent/keyframed.toml")), &environment) {
        Ok(_) => true,
        Err(error) => {
            // Telling what is wrong is part of it.
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
