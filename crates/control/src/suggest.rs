//! Did you mean …?

/// The name among `known` that `typed` is probably a misspelling of.
pub fn closest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > 64 {
        return None;
    }
    let plain = |s: &str| s.to_ascii_lowercase().replace(['-', ' ', '/'], "_");
    let typed = plain(typed);
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, &plain(name)), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A client's text as errors quote it: what is long is cut.
pub fn shown(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_recognised_and_strangers_are_not() {
        let known = ["params.get", "params.set", "lambda", "target_key_rate_hz"];
        assert_eq!(closest("params.gte", known), Some("params.get"));
        assert_eq!(closest("lamda", known), Some("lambda"));
        assert_eq!(closest("target-key-rate", known), Some("target_key_rate_hz"));
        assert_eq!(closest("xyzzy", known), None);
        assert_eq!(closest(&"lambda".repeat(100_000), known), None);
    }

    #[test]
    fn quotes_are_short() {
        assert_eq!(shown("a\n"), r#""a\n""#);
        assert!(shown(&"é".repeat(10_000)).len() < 200);
    }
}
