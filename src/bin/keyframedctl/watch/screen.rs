//! The picture of the state. What does not fit is left out, the most important last.

use std::path::Path;

use keyframed_control::types::{Event, Level, PartState, PartStatus, Percentiles, Showing, Stats};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph},
};

use super::state::{HISTORY, State};
use crate::show;

/// From this width on there are charts beside the figures.
const WIDE: u16 = 72;
/// Width of the figures.
const FIGURES: u16 = 36;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let outputs = state.status.as_ref().map_or(0, |s| s.outputs.len());
    let parts = u16::try_from(outputs).unwrap_or(u16::MAX).saturating_add(3).min(frame.area().height / 3);
    let [head, middle, middle_parts, events] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(8),
        Constraint::Length(parts),
        Constraint::Length(frame.area().height / 4),
    ])
    .areas(frame.area());
    frame.render_widget(header(state), head);
    if middle.width >= WIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Length(FIGURES), Constraint::Min(20)]).areas(middle);
        frame.render_widget(figures(state), left);
        let [top, bottom] =
            Layout::vertical([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(right);
        latency_chart(frame, state, top);
        rate_chart(frame, state, bottom);
    } else {
        frame.render_widget(figures(state), middle);
    }
    frame.render_widget(parts_list(state), middle_parts);
    frame.render_widget(events_list(state, events.height), events);
}

fn header(state: &State) -> Paragraph<'static> {
    let first = match &state.status {
        None => Line::from("keyframed".bold()),
        Some(s) => {
            let shows = match (s.showing, s.paused) {
                (_, true) => " PAUSED ".black().on_yellow(),
                (Showing::Live, false) => " LIVE ".black().on_green(),
                (Showing::Held, false) => " HELD ".black().on_yellow(),
                (Showing::Slate, false) => " SLATE ".white().on_red(),
            };
            let reference = s.reference.as_deref().map(|r| format!(" · {}", stem(r))).unwrap_or_default();
            let loading = if s.loaded { "" } else { " (loading)" };
            Line::from(vec![
                format!("keyframed {} ", s.version).bold(),
                shows,
                format!(
                    " {} · {}{loading}{reference} · up {}",
                    s.pipeline,
                    stem(&s.model),
                    show::span(s.uptime_secs)
                )
                .into(),
            ])
        }
    };
    let second = match &state.lost {
        Some(why) => {
            Line::from(format!("waiting for the daemon: {}", why.lines().next().unwrap_or("")).yellow())
        }
        None => Line::from("q quits".dark_gray()),
    };
    Paragraph::new(vec![first, second])
}

/// The name in a path, without folders and ending.
fn stem(path: &str) -> &str {
    Path::new(path).file_stem().and_then(|s| s.to_str()).unwrap_or(path)
}

fn figures(state: &State) -> Paragraph<'static> {
    let lines = match state.newest() {
        Some(stats) => figure_lines(stats),
        None => vec![Line::from("no figures yet")],
    };
    Paragraph::new(lines).block(Block::bordered().title("figures"))
}

fn figure_lines(s: &Stats) -> Vec<Line<'static>> {
    let line = |name: &str, value: String| Line::from(vec![format!("{name:<11}").dark_gray(), value.into()]);
    let times = |p: Percentiles| match p.p99 {
        ..10_000. => format!("{:.0} / {:.0} / {:.0} ms", p.p50, p.p95, p.p99),
        _ => format!("{:.1} / {:.1} / {:.1} s", p.p50 / 1e3, p.p95 / 1e3, p.p99 / 1e3),
    };
    let mut lines = vec![
        line("rate", format!("{:.1} out, {:.1} in /s", s.output_rate_hz, s.input_rate_hz)),
        line("latency", s.latency_ms.map_or_else(|| "–".into(), times)),
        line("key ratio", format!("{:.0} %, {:.0} ms each", s.key_ratio * 100., s.generate_ms)),
        line("λ", format!("{:.4}", s.lambda)),
        Line::from(vec![
            format!("{:<11}", "rung").dark_gray(),
            Span::styled(s.rung.clone(), rung_style(&s.rung)),
        ]),
        line("key frames", s.key_frames.to_string()),
        line("late", s.late.to_string()),
        line("dropped", format!("{}, failed {}", s.dropped, s.failed)),
    ];
    lines.extend(s.queue_frames.iter().map(|(queue, n)| {
        let age = s.queue_age_ms.get(queue).copied().unwrap_or_default();
        line(&format!("queue {queue}"), format!(" {n}, {age:.0} ms old"))
    }));
    lines
}

fn rung_style(rung: &str) -> Style {
    match rung {
        "film" => Style::new().green(),
        "repeat" => Style::new().red(),
        _ => Style::new().yellow(),
    }
}

fn latency_chart(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let series = |pick: fn(&Percentiles) -> f64| points(state, |s| s.latency_ms.as_ref().map(pick));
    let (p50, p95, p99) = (series(|p| p.p50), series(|p| p.p95), series(|p| p.p99));
    let lines =
        [("p50", &p50[..], Color::Green), ("p95", &p95[..], Color::Yellow), ("p99", &p99[..], Color::Red)];
    chart(frame, area, "latency, ms", &lines);
}

fn rate_chart(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let out = points(state, |s| Some(s.output_rate_hz));
    let poses = points(state, |s| Some(s.input_rate_hz));
    let lines = [("out", &out[..], Color::Cyan), ("in", &poses[..], Color::Magenta)];
    chart(frame, area, "frames a second", &lines);
}

/// One figure over time: seconds before now, value.
fn points(state: &State, figure: impl Fn(&Stats) -> Option<f64>) -> Vec<(f64, f64)> {
    let now = state.newest().map_or(0., |s| s.uptime_secs);
    state.history.iter().filter_map(|s| Some((s.uptime_secs - now, figure(s)?))).collect()
}

/// Name, points and colour.
type Curve<'a> = (&'a str, &'a [(f64, f64)], Color);

fn chart(frame: &mut Frame<'_>, area: Rect, title: &str, curves: &[Curve<'_>]) {
    let highest = curves.iter().flat_map(|(_, points, _)| points.iter()).map(|p| p.1).fold(0., f64::max);
    let top = round_up(highest);
    let first = curves.iter().flat_map(|(_, points, _)| points.first()).map(|p| p.0).fold(-30., f64::min);
    let left = first.max(-(HISTORY as f64));
    let datasets = curves
        .iter()
        .map(|(_, points, color)| {
            Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(*color).data(points)
        })
        .collect();
    let x = Axis::default().bounds([left, 0.]).labels([format!("{left:.0} s"), "now".into()]);
    let y = Axis::default().bounds([0., top]).labels(["0".into(), format!("{top:.0}")]);
    // A legend would hide the newest values, or be left out for lack of room.
    let names = curves.iter().map(|(name, _, color)| Span::styled(format!(" {name}"), *color));
    let title: Line<'_> = [Span::from(format!("{title}:"))].into_iter().chain(names).collect();
    let widget = Chart::new(datasets).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
    frame.render_widget(widget, area);
}

/// The next of 1, 2, 5, 10, 20, 50 …: a scale that does not jump with every value.
fn round_up(value: f64) -> f64 {
    let mut top = 1.;
    for factor in [2., 2.5, 2.].into_iter().cycle() {
        if top >= value || !value.is_finite() {
            break;
        }
        top *= factor;
    }
    top
}

fn parts_list(state: &State) -> Paragraph<'static> {
    let mut lines = Vec::new();
    if let Some(s) = &state.status {
        lines.push(part("source", &s.source));
        lines.extend(s.outputs.iter().map(|o| part("output", o)));
    }
    Paragraph::new(lines).block(Block::bordered().title("parts"))
}

fn part(what: &str, p: &PartStatus) -> Line<'static> {
    let style = match p.state {
        PartState::Running => Style::new().green(),
        PartState::Starting => Style::new().yellow(),
        PartState::Lost => Style::new().red(),
    };
    let counts = match p.restarts {
        0 => format!(" {} frames, {} dropped", p.frames, p.dropped),
        n => format!(" {} frames, {} dropped, opened again {n}x", p.frames, p.dropped),
    };
    let mut spans = vec![
        format!("{what} {:<12} ", p.name).into(),
        Span::styled(format!("{:<8}", show::state(p.state)), style),
        format!(" {}", p.kind).dark_gray(),
        counts.into(),
    ];
    if let Some(error) = p.last_error.as_ref().filter(|_| p.state != PartState::Running) {
        spans.push(format!(": {error}").red());
    }
    Line::from(spans)
}

fn events_list(state: &State, height: u16) -> Paragraph<'static> {
    let room = usize::from(height.saturating_sub(2));
    let lines: Vec<Line<'static>> = state.events.iter().rev().take(room).map(event).collect();
    Paragraph::new(lines).block(Block::bordered().title("events, newest first"))
}

fn event(e: &Event) -> Line<'static> {
    let style = match e.level {
        Level::Info => Style::new(),
        Level::Warning => Style::new().yellow(),
        Level::Error => Style::new().red(),
    };
    let part = e.part.as_deref().map(|p| format!("{p}: ")).unwrap_or_default();
    Line::from(vec![
        format!("{:>8.1} s ", e.uptime_secs).dark_gray(),
        Span::styled(format!("{part}{}", e.message), style),
    ])
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
