//! Takes typed values out of TOML. Each function here returns one that takes a value or says what it expected.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use keyframed_engine::Rate;
use toml::de::{DeInteger, DeValue};

use super::mask::masked;

/// Longest text that a message repeats, in characters.
const SHOWN: usize = 40;

/// A value for a message.
pub fn shown(value: &DeValue<'_>) -> String {
    let cut = |text: &str| match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    match value {
        // Masked before it is cut: of half a URL nobody can tell what is a password.
        DeValue::String(text) => format!("the text {:?}", cut(&masked(text))),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(&number.to_string()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn expected<T>(wanted: impl Display, value: &DeValue<'_>) -> Result<T, String> {
    Err(format!("expected {wanted}, not {}", shown(value)))
}

fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => integer(number).map(|n| n as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// A whole number in a range; `unit` is what it counts (`pixels`), or empty.
pub fn whole<T>(low: T, high: T, unit: &'static str) -> impl Fn(&DeValue<'_>) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let number = value.as_integer().and_then(integer).and_then(|n| T::try_from(n).ok());
        match number.filter(|n| (&low..=&high).contains(&n)) {
            Some(number) => Ok(number),
            None => {
                let of = if unit.is_empty() { "" } else { " of " };
                expected(format!("a whole number{of}{unit} from {low} to {high}"), value)
            }
        }
    }
}

/// Side of a picture: even, because H.264's colours are at half size.
pub fn side() -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    |value| {
        whole(16, 8192, "pixels")(value).and_then(|side| match side % 2 {
            0 => Ok(side),
            _ => expected("an even number of pixels (H.264 halves them)", value),
        })
    }
}

/// A time in whole milliseconds.
pub fn millis(low: u64, high: u64) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| whole(low, high, "milliseconds")(value).map(Duration::from_millis)
}

/// A time in whole minutes.
pub fn minutes(low: u64, high: u64) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| whole(low, high, "minutes")(value).map(|n| Duration::from_secs(n * 60))
}

/// A number in a range.
pub fn number(low: f64, high: f64) -> impl Fn(&DeValue<'_>) -> Result<f64, String> {
    move |value| match float(value).filter(|n| (low..=high).contains(n)) {
        Some(number) => Ok(number),
        None => expected(format!("a number from {low} to {high}"), value),
    }
}

/// `true` or `false`.
pub fn flag() -> impl Fn(&DeValue<'_>) -> Result<bool, String> {
    |value| value.as_bool().map_or_else(|| expected("true or false", value), Ok)
}

/// One of some words.
pub fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        let Some((_, meaning)) = found else {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let meant = value.as_str().and_then(|text| super::suggest::closest(text, &words));
            let hint = meant.map(|word| format!(" (did you mean {word:?}?)")).unwrap_or_default();
            return expected(format!("one of {}", words.join(", ")), value).map_err(|text| text + &hint);
        };
        Ok(*meaning)
    }
}

/// A line of text, which may be empty.
pub fn line(what: &'static str) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    move |value| match value.as_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => expected(what, value),
    }
}

/// Text with something in it, on one line.
pub fn text(what: &'static str) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    move |value| match value.as_str() {
        Some(text) if !text.trim().is_empty() && !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => expected(what, value),
    }
}

/// Part of a `gst-launch-1.0` line, which may go over several lines.
pub fn launch() -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    |value| match value.as_str() {
        Some(text) if !text.trim().is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => expected("a piece of a gst-launch-1.0 line", value),
    }
}

/// A path as written; it is completed later.
pub fn path() -> impl Fn(&DeValue<'_>) -> Result<PathBuf, String> {
    |value| text("a path")(value).map(PathBuf::from)
}

/// A list of paths.
pub fn paths() -> impl Fn(&DeValue<'_>) -> Result<Vec<PathBuf>, String> {
    |value| match value.as_array() {
        Some(items) => items.iter().map(|item| path()(item.get_ref())).collect(),
        None => expected("a list of paths, such as [\"~/avatars\"]", value),
    }
}

/// Frames a second: a number, or a fraction as text.
pub fn rate() -> impl Fn(&DeValue<'_>) -> Result<Rate, String> {
    |value| {
        let text = match value {
            DeValue::String(text) => Some(text.to_string()),
            other => float(other).map(|n| n.to_string()),
        };
        match text.and_then(|text| crate::rate::parse(&text).ok()) {
            Some(rate) => Ok(rate),
            None => expected("frames a second from 1 to 240, such as 25, 29.97 or \"30000/1001\"", value),
        }
    }
}

/// An IP address without a port.
pub fn ip() -> impl Fn(&DeValue<'_>) -> Result<IpAddr, String> {
    |value| match value.as_str().and_then(|text| text.parse().ok()) {
        Some(address) => Ok(address),
        None => {
            let port = value.as_str().is_some_and(|text| text.parse::<SocketAddr>().is_ok());
            let hint = if port { " (the port goes into `port`)" } else { "" };
            expected("an IP address such as \"127.0.0.1\"", value).map_err(|text| text + hint)
        }
    }
}

/// A port that can be named.
pub fn port() -> impl Fn(&DeValue<'_>) -> Result<u16, String> {
    whole(1, u16::MAX, "")
}

/// An IP address with a port.
pub fn socket() -> impl Fn(&DeValue<'_>) -> Result<SocketAddr, String> {
    |value| match value.as_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
        Some(address) if address.port() != 0 => Ok(address),
        _ => expected("an IP address and a port such as \"127.0.0.1:5555\"", value),
    }
}

/// `host:port`.
pub fn peer() -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    |value| match value.as_str() {
        Some(text) if is_peer(text) => Ok(text.to_owned()),
        _ => expected("a host and a port such as \"studio.example:9000\"", value),
    }
}

fn is_peer(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A URL of one of some schemes.
pub fn url(schemes: &'static [&'static str]) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    move |value| {
        let text = value.as_str().filter(|text| !text.contains(|c: char| c.is_control() || c == ' '));
        let parts = text.and_then(|text| text.split_once("://"));
        let fits = |(scheme, rest): (&str, &str)| {
            schemes.contains(&scheme) && rest.split('/').next().is_some_and(|host| !host.is_empty())
        };
        match text.filter(|_| parts.is_some_and(fits)) {
            Some(text) => Ok(text.to_owned()),
            // Not repeated: it may hold a password or a stream key.
            None if value.is_str() => {
                Err(format!("expected a URL such as \"{}://host/path\"", schemes.join("://… or ")))
            }
            None => expected(format!("a URL such as \"{}://host/path\"", schemes.join("://… or ")), value),
        }
    }
}

/// Permissions as `chmod` takes them.
pub fn mode() -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    |value| {
        let bits = match value {
            DeValue::String(text) => u32::from_str_radix(text, 8).ok(),
            DeValue::Integer(number) if number.radix() == 8 => {
                integer(number).and_then(|n| u32::try_from(n).ok())
            }
            _ => None,
        };
        match bits.filter(|bits| *bits <= 0o777) {
            Some(bits) if bits & 0o600 == 0o600 => Ok(bits),
            Some(_) => expected("permissions that let the owner read and write, such as \"0660\"", value),
            None => expected("permissions in octal as text, such as \"0660\"", value),
        }
    }
}

/// Text that another type's own rules are asked about; `Err` of `check` says what is wrong.
pub fn checked(
    what: &'static str,
    check: fn(&str) -> Result<(), String>,
) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    move |value| {
        let text = text(what)(value)?;
        check(&text).map(|()| text)
    }
}
