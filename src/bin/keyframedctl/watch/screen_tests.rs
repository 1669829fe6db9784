//! The dashboard on terminals of all sizes.

use keyframed_control::types::{InBetweens, Status};
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::watch::state::News;

/// Telemetry as `status --json` and the telemetry socket of a running daemon gave it.
fn recorded() -> State {
    let mut state = State::default();
    let mut lines = include_str!("recorded.jsonl").lines();
    let status: Status = serde_json::from_str(lines.next().unwrap()).unwrap();
    for line in lines {
        match serde_json::from_str::<Event>(line) {
            Ok(event) => state.take(News::Event(event)),
            Err(_) => state.take(News::Stats(Box::new(serde_json::from_str(line).unwrap()))),
        }
    }
    state.take(News::Status(Box::new(status)));
    state
}

fn render(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn all_that_was_promised_is_on_an_ordinary_terminal() {
    let text = render(&recorded(), 100, 40);
    eprintln!("{text}");
    for word in [
        "rate",
        "latency",
        "key ratio",
        "λ",
        "rung",
        "queue",
        "source",
        "p50",
        "p95",
        "p99",
        "LIVE",
        "events",
    ] {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve in\n{text}");
}

#[test]
fn narrow_and_tiny_terminals_show_the_figures_and_do_not_panic() {
    let state = recorded();
    let narrow = render(&state, 40, 24);
    eprintln!("{narrow}");
    for word in ["rate", "latency", "λ", "rung"] {
        assert!(narrow.contains(word), "{word:?} is missing in\n{narrow}");
    }
    for (width, height) in [(1, 1), (2, 3), (10, 5), (80, 4), (3, 50), (300, 100)] {
        render(&state, width, height);
        render(&State::default(), width, height);
    }
}

#[test]
fn a_daemon_that_is_away_is_said() {
    let mut state = recorded();
    state.take(News::Lost("no keyframed answers; looked at\n  ipc:///x: there is no socket".into()));
    assert!(render(&state, 100, 30).contains("waiting for the daemon: no keyframed answers"));
}

#[test]
fn absurd_figures_are_drawn() {
    let mut state = recorded();
    for value in [f64::MAX, 1e-300, 0.] {
        let stats = Stats {
            uptime_secs: state.newest().unwrap().uptime_secs + 1.,
            output_rate_hz: value,
            latency_ms: Some(Percentiles { p50: value, p95: value, p99: value }),
            in_betweens: InBetweens::default(),
            rung: "x".repeat(1000),
            ..Stats::default()
        };
        state.take(News::Stats(Box::new(stats)));
        render(&state, 100, 30);
    }
}

#[test]
fn scales_are_round() {
    for (value, top) in [(0., 1.), (1., 1.), (1.5, 2.), (3., 5.), (7., 10.), (180., 200.), (1001., 2000.)] {
        assert_eq!(round_up(value), top);
    }
    assert!(round_up(f64::NAN).is_finite());
}
