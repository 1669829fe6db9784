//! What was meant by a name that does not exist.

/// Likeness from which on a name is suggested.
const LIKE: f64 = 0.8;

/// The known name that `given` most likely stands for, if any is near.
pub fn closest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given = plain(given);
    if given.is_empty() {
        return None;
    }
    // Units are in names and easily forgotten or mistaken: `latency`, `latency_s`.
    let stem = known.iter().find(|name| stem(name) == stem(&given) || plain(name) == given);
    let like = || {
        let scored = known.iter().map(|name| (strsim::jaro_winkler(&given, &plain(name)), name));
        scored.filter(|(score, _)| *score >= LIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
    };
    stem.or_else(like).copied()
}

fn plain(name: &str) -> String {
    // Cut: likeness takes time by the product of lengths, and names are short.
    name.chars().take(64).filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// A name without its unit.
fn stem(name: &str) -> String {
    const UNITS: [&str; 14] = [
        "milliseconds",
        "seconds",
        "minutes",
        "frames",
        "kbps",
        "secs",
        "mins",
        "bps",
        "sec",
        "min",
        "fps",
        "hz",
        "ms",
        "s",
    ];
    let plain = plain(name);
    let unit = UNITS.iter().find_map(|unit| plain.strip_suffix(unit)).filter(|stem| stem.len() >= 3);
    unit.map_or(plain.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_typing_errors_are_seen_through() {
        let known =
            ["latency_ms", "frame_rate_hz", "window_frames", "guidance_scale", "steps", "retry_min_ms"];
        for (given, meant) in [
            ("latency", "latency_ms"),
            ("latency_s", "latency_ms"),
            ("latency-ms", "latency_ms"),
            ("framerate", "frame_rate_hz"),
            ("frame_rate_fps", "frame_rate_hz"),
            ("window", "window_frames"),
            ("guidence_scale", "guidance_scale"),
            ("Steps", "steps"),
            ("step", "steps"),
        ] {
            assert_eq!(closest(given, &known), Some(meant), "{given}");
        }
        for given in ["", "_", "colour", "x", "日本"] {
            assert_eq!(closest(given, &known), None, "{given}");
        }
    }
}
