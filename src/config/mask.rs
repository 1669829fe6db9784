//! Texts without what they may tell about others' doors: passwords, stream keys, passphrases.
//!
//! Messages of GStreamer and pieces of launch lines are not ours to write; before they are shown they go through here.
//! Rather too much is hidden than too little.

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Names of properties, or parts of them, whose values are secret.
const SECRET_NAMES: [&str; 9] =
    ["pass", "secret", "token", "credential", "user-pw", "proxy-pw", "streamid", "stream-key", "pbkey"];

/// The text with users, passwords and queries of its URLs hidden, and values of properties that hold secrets.
pub fn masked(text: &str) -> String {
    properties(&urls(text))
}

/// A URL's scheme and host: the rest may hold a password or a stream key.
pub fn host(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, more) = authority(rest);
    format!("{scheme}://{authority}{}", if more.is_empty() { "" } else { "/…" })
}

/// Host and port of what follows `://`, and what comes after.
fn authority(rest: &str) -> (String, &str) {
    let query = rest.find(['?', '#']).unwrap_or(rest.len());
    // Passwords may hold slashes, hosts no @.
    let begin = rest[..query].rfind('@').map_or(0, |at| at + 1);
    let end = rest[begin..].find(['/', '?', '#']).map_or(rest.len(), |at| begin + at);
    let host = &rest[begin..end];
    // What looks like a port and is none is half a password.
    let is_plain = host.starts_with('[')
        || host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    (if is_plain { host } else { MASK }.to_owned(), &rest[end..])
}

fn urls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        shown.push_str(&rest[..at + 3]);
        rest = &rest[at + 3..];
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>'));
        let (url, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        // A file's or a socket's path.
        if url.starts_with('/') {
            shown.push_str(url);
            continue;
        }
        let (authority, path) = authority(url);
        shown.push_str(&authority);
        // What is published over RTMP is called by its key.
        if matches!(scheme, "rtmp" | "rtmps" | "rtmpt") {
            shown.push_str(if path.is_empty() { "" } else { "/…" });
            continue;
        }
        let query = path.find(['?', '#']).unwrap_or(path.len());
        shown.push_str(&path[..query]);
        shown.push_str(if query < path.len() { "?…" } else { "" });
    }
    shown + rest
}

/// `name=value` of a launch line, and GStreamer's `property "name" in element "e" to "value"`.
fn properties(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(name) = next_secret(rest) {
        let (end, hides) = match value_at(&rest[name..]) {
            Some(at) => (name + at, true),
            None => (name, false),
        };
        shown.push_str(&rest[..end]);
        rest = &rest[end..];
        if hides {
            shown.push_str(MASK);
            rest = &rest[length(rest)..];
        }
    }
    shown + rest
}

/// Where the next name of a secret ends.
fn next_secret(text: &str) -> Option<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut at = 0;
    while at < text.len() {
        let begin = at + text[at..].find(is_name)?;
        let end = text[begin..].find(|c| !is_name(c)).map_or(text.len(), |len| begin + len);
        let name = text[begin..end].to_ascii_lowercase().replace('_', "-");
        if SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
            return Some(end);
        }
        at = end;
    }
    None
}

/// Where a value begins, in what follows a name.
fn value_at(after: &str) -> Option<usize> {
    let trimmed = after.trim_start();
    if let Some(value) = trimmed.strip_prefix('=') {
        return Some(after.len() - value.trim_start().len());
    }
    let quoted = after.strip_prefix("\" in element \"")?;
    let value = quoted.find("\" to \"")? + "\" to ".len();
    Some(after.len() - quoted.len() + value)
}

/// Bytes of a value, its quotes included.
fn length(value: &str) -> usize {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return value.find(char::is_whitespace).unwrap_or(value.len());
    };
    let mut is_escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_scheme_and_host_are_told() {
        assert_eq!(host("rtmp://a:b@live.example/app/key?token=1"), "rtmp://live.example/…");
        assert_eq!(host("rtsp://cam:8554"), "rtsp://cam:8554");
        assert_eq!(host("rtsp://u:p@cam?x=y@z"), "rtsp://cam/…");
        assert_eq!(host("rtsp://u:p/w@cam:8554/x"), "rtsp://cam:8554/…");
        assert_eq!(host("rtsp://u:p?w@cam/x"), "rtsp://***/…");
        assert_eq!(host("rtsp://[::1]:8554/x"), "rtsp://[::1]:8554/…");
    }

    #[test]
    fn users_passwords_and_queries_are_hidden_wherever_a_url_stands() {
        for (text, shown) in [
            (
                "rtspsrc location=rtsp://u:p@cam:8554/live ! fakesink",
                "rtspsrc location=rtsp://cam:8554/live ! fakesink",
            ),
            (
                "cannot open \"srt://h:9000?passphrase=abc&mode=caller\": no",
                "cannot open \"srt://h:9000?…\": no",
            ),
            ("a rtmp://h/app/key b rtsp://u@h c", "a rtmp://h/… b rtsp://h c"),
            (
                "rtmp2sink location='rtmp://h/app/key flashver=x'",
                "rtmp2sink location='rtmp://h/… flashver=x'",
            ),
            ("uri=https://ü:ß@h/p#t", "uri=https://h/p?…"),
            ("ipc:///run/a@b/c file:///x", "ipc:///run/a@b/c file:///x"),
            ("://", "://"),
            ("x://u:p", "x://***"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    #[test]
    fn values_of_secret_properties_are_hidden() {
        for (text, shown) in [
            ("srtsink passphrase=abc mode=caller", "srtsink passphrase=*** mode=caller"),
            ("srtsink passphrase = \"a \\\" b\" mode=caller", "srtsink passphrase = *** mode=caller"),
            ("rtspsrc user-id=u user-pw='p w'", "rtspsrc user-id=u user-pw=***"),
            ("x password=", "x password=***"),
            ("x STREAM_KEY=ä y", "x STREAM_KEY=*** y"),
            (
                "could not set property \"passphrase\" in element \"srtsink0\" to \"abc\" now",
                "could not set property \"passphrase\" in element \"srtsink0\" to *** now",
            ),
            ("x264enc key-int-max=30 ! identity", "x264enc key-int-max=30 ! identity"),
            (
                "[outputs.a] passphrase_file: x cannot be read",
                "[outputs.a] passphrase_file: x cannot be read",
            ),
            ("token pass secret", "token pass secret"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_through(text in "\\PC{0,40}(://|@|=|pass|\"|'|[a-z]|\\PC){0,20}") {
            let shown = masked(&text);
            proptest::prop_assert!(masked(&shown).len() <= shown.len() + MASK.len() * 20);
        }
    }
}
