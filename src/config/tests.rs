//! Whole texts, read and resolved.

use std::time::Duration;

use super::{resolved::*, *};

fn parse(text: &str) -> Result<Config, ConfigError> {
    let environment = Environment {
        home: Some("/home/ada".into()),
        runtime_dir: Some("/run/user/7".into()),
        ..Environment::default()
    };
    super::parse(text, Some(Path::new("/etc/k/k.toml")), &environment)
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn nothing_at_all_is_the_test_figure_and_no_outputs() {
    let config = good("");
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["figure"]);
    assert!(
        matches!(&config.sources["figure"].kind, SourceKind::TestFigure { pattern, .. } if pattern == "dance")
    );
    assert_eq!((config.pipeline.as_str(), config.pipelines.len()), ("figure", 1));
    assert!(config.outputs.is_empty() && config.gallery.is_empty() && config.metrics.is_none());
    assert_eq!(config.control.endpoint, "ipc:///run/user/7/keyframed/control.sock");
    assert_eq!(config.control.telemetry_endpoint, "ipc:///run/user/7/keyframed/telemetry.sock");
    assert_eq!(config.video.rate.num(), 25);
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
