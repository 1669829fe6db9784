//! Whole texts, read and resolved.

mod errors;
mod fuzz;
mod ranges;
mod shipped;

use std::{fs, time::Duration};

use super::{resolved::*, *};

fn environment() -> Environment {
    let (home, runtime_dir) = (Some("/home/ada".into()), Some("/run/user/7".into()));
    Environment { home, runtime_dir, ..Environment::default() }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    super::parse(text, Some(Path::new("/etc/k/k.toml")), &environment())
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn nothing_at_all_is_the_test_figure_and_no_outputs() {
    for text in ["", "\n", "# nothing", "\u{feff}", "[sources]\n[outputs]\n[pipelines]\n"] {
        let config = good(text);
        assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["figure"]);
        let figure = &config.sources["figure"].kind;
        assert!(matches!(figure, SourceKind::TestFigure { pattern, .. } if pattern == "dance"));
        assert_eq!((config.pipeline.as_str(), config.pipelines.len()), ("figure", 1));
        assert!(config.outputs.is_empty() && config.gallery.is_empty() && config.metrics.is_none());
        assert_eq!(config.control.endpoint, "ipc:///run/user/7/keyframed/control.sock");
        assert_eq!(config.control.telemetry_endpoint, "ipc:///run/user/7/keyframed/telemetry.sock");
        assert_eq!((config.video.rate.num(), config.video.rate.den()), (25, 1));
    }
}

#[test]
fn a_pipeline_overrides_what_differs() {
    let config = good(
        r#"
        pipeline = "b"
        [sources.camera]
        kind = "rtsp"
        url = "rtsp://cam/1"
        timeout_ms = 700
        [animation]
        lambda = 0.02
        steps = 2
        [pipelines.a]
        source = "camera"
        [pipelines.b]
        source = "camera"
        animation.steps = 3
        "#,
    );
    let params = |name: &str| config.pipelines[name].animation.params;
    assert_eq!((params("a").steps, params("b").steps), (Some(2), Some(3)));
    assert_eq!((params("a").lambda, params("b").lambda), (0.02, 0.02));
    assert_eq!(config.sources["camera"].timeout, Duration::from_millis(700));
}

#[test]
fn without_pipelines_there_is_one_for_each_source() {
    let two = r#"
        [sources.a]
        kind = "udp"
        port = 5000
        [sources.b]
        kind = "file"
        path = "b.mp4"
    "#;
    let config = good(&format!("pipeline = 'b'\n{two}"));
    assert_eq!(config.pipelines.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((config.pipeline.as_str(), config.pipelines["b"].source.as_str()), ("b", "b"));
    assert!(
        matches!(&config.sources["b"].kind, SourceKind::File { path, repeat: true } if path == Path::new("/etc/k/b.mp4"))
    );
    assert!(
        matches!(&config.sources["a"].kind, SourceKind::Udp { address } if address.to_string() == "127.0.0.1:5000")
    );
    assert!(parse(two).unwrap_err().to_string().contains("say which one runs at start, there are a, b"));
}

#[test]
fn an_output_that_is_off_is_checked_and_left_out() {
    let text =
        "[outputs.a]\nkind = 'udp'\nport = 5000\nenabled = false\n[outputs.b]\nkind = 'udp'\nport = 5000";
    assert_eq!(good(text).outputs.keys().collect::<Vec<_>>(), ["b"]);
    assert!(parse(&text.replace("port = 5000\ne", "port = 0\ne")).is_err());
}

#[test]
fn a_pause_that_is_set_alone_moves_the_others_default() {
    let retry = |text: &str| good(&format!("[outputs.a]\nkind = 'window'\n{text}")).outputs["a"].retry;
    let millis = |low, high| (Duration::from_millis(low), Duration::from_millis(high));
    assert_eq!(retry(""), millis(500, 10_000));
    assert_eq!(retry("retry_min_ms = 60000"), millis(60_000, 60_000));
    assert_eq!(retry("retry_max_ms = 100"), millis(100, 100));
}

#[test]
fn references_are_found_in_the_gallery_then_among_avatars_then_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("gallery")).unwrap();
    for file in ["gallery/ada.png", "gallery/zoe.jpg", "own.png"] {
        fs::write(place(file), []).unwrap();
    }
    let found = |name: &str| {
        let text = format!("[gallery]\ndirectories = ['gallery']\n[animation]\nreference = '{name}'");
        let config = super::parse(&text, Some(&place("k.toml")), &environment());
        config.map(|config| config.pipelines["figure"].animation.reference.clone())
    };
    assert_eq!(found("ada").unwrap(), Some(place("gallery/ada.png")));
    assert_eq!(found("zoe").unwrap(), Some(place("gallery/zoe.jpg")));
    assert!(found("ben").unwrap().is_some_and(|path| path.ends_with("avatars/ben.png")));
    assert_eq!(found("own.png").unwrap(), Some(place("own.png")));
    let refused = found("nobody").unwrap_err().to_string();
    assert!(refused.contains("line 4: [animation] reference: there is no picture \"nobody\""), "{refused}");
    assert!(refused.contains("ada, ben"), "{refused}");
}

#[test]
fn two_readings_are_equal_and_a_change_shows() {
    let text = "[outputs.a]\nkind = 'udp'\nport = 5000";
    assert_eq!(good(text), good(text));
    assert_ne!(good(text), good(&text.replace("5000", "5001")));
    assert_eq!(good(text).outputs["a"].encoder.bitrate_kbps, 4000);
}
