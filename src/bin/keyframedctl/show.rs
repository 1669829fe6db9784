//! Results for people.

use std::fmt::Write as _;

use keyframed_control::{
    Method,
    types::{
        Params, PartState, PartStatus, PipelineInfo, Reference, Reloaded, Showing, Snapshot, Stats, Status,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A method's result as text. One of a daemon with other fields is shown as JSON.
pub fn result(method: Method, value: &Value) -> String {
    fn read<T: DeserializeOwned>(value: &Value, show: impl FnOnce(T) -> String) -> Option<String> {
        serde_json::from_value(value.clone()).ok().map(show)
    }
    let text = match method {
        Method::Status => read(value, |s: Status| status(&s)),
        Method::ParamsGet | Method::ParamsSet => read(value, |p: Params| params(&p)),
        Method::ReferenceSet => read(value, |r: Reference| format!("{} ({})\n", r.name, r.path)),
        Method::ReferenceList => read(value, |r: Vec<Reference>| references(&r)),
        Method::PipelineList => read(value, |p: Vec<PipelineInfo>| pipelines(&p)),
        Method::PipelineSwitch => read(value, |p: PipelineInfo| pipelines(&[p])),
        Method::Snapshot => {
            read(value, |s: Snapshot| format!("{} x {}, {}\n", s.width, s.height, showing(s.showing)))
        }
        Method::Reload => read(value, |r: Reloaded| reloaded(&r)),
        Method::Pause | Method::Resume | Method::Shutdown if value.is_null() => Some(String::new()),
        _ => None,
    };
    text.unwrap_or_else(|| serde_json::to_string_pretty(value).unwrap_or_default() + "\n")
}

/// Columns as wide as their widest cell, two spaces apart.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}"));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    out
}

fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn mark(current: bool) -> &'static str {
    if current { "*" } else { "" }
}

fn status(s: &Status) -> String {
    let reference = s.reference.as_deref().unwrap_or("the model's first");
    let model = format!("{}{}", s.model, if s.loaded { "" } else { " (loading)" });
    let shows = format!("{}{}", showing(s.showing), if s.paused { ", paused" } else { "" });
    let head = table(&[
        row([&"keyframed", &format!("{}, process {}, up {}", s.version, s.pid, span(s.uptime_secs))]),
        row([&"pipeline", &s.pipeline]),
        row([&"model", &model]),
        row([&"reference", &reference]),
        row([&"shows", &shows]),
    ]);
    let mut parts =
        vec![row([&"PART", &"KIND", &"STATE", &"FRAMES", &"DROPPED", &"RESTARTS", &"LAST ERROR"])];
    parts.push(part("source", &s.source));
    parts.extend(s.outputs.iter().map(|o| part("output", o)));
    format!("{head}\n{}\n{}", table(&parts), figures(&s.stats))
}

fn part(what: &str, p: &PartStatus) -> Vec<String> {
    let name = format!("{what} {}", p.name);
    let error = p.last_error.as_deref().unwrap_or("");
    row([&name, &p.kind, &state(p.state), &p.frames, &p.dropped, &p.restarts, &error])
}

fn figures(s: &Stats) -> String {
    let latency = match s.latency_ms {
        Some(p) => format!("{:.0} / {:.0} / {:.0} ms (p50/p95/p99)", p.p50, p.p95, p.p99),
        None => "–".into(),
    };
    table(&[
        row([&"rate", &format!("{:.1} frames/s out, {:.1} in", s.output_rate_hz, s.input_rate_hz)]),
        row([&"latency", &latency]),
        row([
            &"key frames",
            &format!(
                "{:.0} % of poses, {:.0} ms each, {} so far",
                s.key_ratio * 100.,
                s.generate_ms,
                s.key_frames
            ),
        ]),
        row([&"lambda", &format!("{:.4}", s.lambda)]),
        row([&"rung", &s.rung]),
        row([&"late, dropped, failed", &format!("{}, {}, {}", s.late, s.dropped, s.failed)]),
    ])
}

fn params(p: &Params) -> String {
    let Ok(Value::Object(all)) = serde_json::to_value(p) else { return String::new() };
    let mut rows = Vec::new();
    for spec in keyframed_control::params::SETTINGS {
        let value = match all.get(spec.name) {
            Some(Value::Null) | None => "default".to_owned(),
            Some(Value::String(word)) => word.clone(),
            Some(other) => other.to_string(),
        };
        rows.push(row([&spec.name, &value]));
    }
    table(&rows)
}

fn references(all: &[Reference]) -> String {
    let mut rows = vec![row([&"", &"NAME", &"FILE"])];
    rows.extend(all.iter().map(|r| row([&mark(r.current), &r.name, &r.path])));
    table(&rows)
}

fn pipelines(all: &[PipelineInfo]) -> String {
    let mut rows = vec![row([&"", &"NAME", &"SOURCE", &"MODEL"])];
    rows.extend(all.iter().map(|p| row([&mark(p.current), &p.name, &p.source, &p.model])));
    table(&rows)
}

fn reloaded(r: &Reloaded) -> String {
    let line =
        |what: &str, parts: &[String]| (!parts.is_empty()).then(|| format!("{what}: {}\n", parts.join(", ")));
    let lines = [
        line("applied", &r.applied),
        line("restarted", &r.restarted),
        line("with the daemon's next start", &r.deferred),
    ];
    let text: String = lines.into_iter().flatten().collect();
    if text.is_empty() { "nothing changed\n".into() } else { text }
}

/// The words of `status`.
pub fn state(state: PartState) -> &'static str {
    match state {
        PartState::Starting => "starting",
        PartState::Running => "running",
        PartState::Lost => "lost",
    }
}

/// The words of `status`.
pub fn showing(showing: Showing) -> &'static str {
    match showing {
        Showing::Live => "live",
        Showing::Held => "last frame held",
        Showing::Slate => "slate",
    }
}

/// A time for people: `2 d 3 h`, `4 min 5 s`.
pub fn span(secs: f64) -> String {
    let s = secs.max(0.) as u64;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, s) => format!("{min} min {s} s"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}
