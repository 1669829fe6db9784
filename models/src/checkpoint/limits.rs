//! What no network's configuration exceeds. `model.toml` and `config.json` come from anywhere, and networks that they
//! describe are built over nothing when files are compared with them: a claim must not cost hours or all memory.

use toml::Value;

/// Levels of a pyramid of pictures: each halves the sides, and the published networks have four.
pub const LEVELS: usize = 8;
/// Layers of one level, or blocks of one layer; the published networks have at most three.
pub const LAYERS: i64 = 16;
/// Layers of the text encoder: CLIP's have 12, the largest known 32.
pub const TEXT_LAYERS: i64 = 64;
/// Frames of a motion module's position table: the published one has 24.
pub const FRAMES: i64 = 1024;

/// Any whole number: the published networks' largest is CLIP's vocabulary, 49,408.
const NUMBER: i64 = 1 << 16;
/// Entries of a list.
const ENTRIES: usize = 64;

/// The first number or list of a network's table, and of tables in it, that is beyond all sense.
///
/// # Errors
/// A sentence's end that names it.
pub(super) fn check(table: &toml::Table) -> Result<(), String> {
    table.iter().try_for_each(|(name, value)| check_value(name, value))
}

fn check_value(name: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(number) if !(0..=NUMBER).contains(number) => {
            Err(format!("`{name}` is {number}, and must be within 0..{NUMBER}"))
        }
        Value::Float(number) if !number.is_finite() => {
            Err(format!("`{name}` is {number}, which is no value"))
        }
        Value::Array(list) if list.len() > ENTRIES => {
            Err(format!("`{name}` has {} entries, {ENTRIES} at most make sense", list.len()))
        }
        Value::Array(list) => list.iter().try_for_each(|entry| check_value(name, entry)),
        Value::Table(table) => check(table),
        _ => Ok(()),
    }
}
