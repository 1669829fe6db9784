//! What the dashboard knows.

use std::collections::VecDeque;

use keyframed_control::types::{Event, Stats, Status};

/// Seconds of history.
pub const HISTORY: usize = 300;
/// Events kept.
const EVENTS: usize = 100;

/// Something new.
#[derive(Debug)]
pub enum News {
    /// Answer to `status`.
    Status(Box<Status>),
    /// Telemetry.
    Stats(Box<Stats>),
    /// Telemetry.
    Event(Event),
    /// No daemon, and why; it is tried again.
    Lost(String),
}

/// What the dashboard shows.
#[derive(Debug, Default)]
pub struct State {
    /// Newest; kept while the daemon is away.
    pub status: Option<Status>,
    /// Oldest first, one a second.
    pub history: VecDeque<Stats>,
    /// Oldest first.
    pub events: VecDeque<Event>,
    /// Why there is no daemon just now.
    pub lost: Option<String>,
}

impl State {
    /// Takes something new in.
    pub fn take(&mut self, news: News) {
        match news {
            News::Lost(why) => self.lost = Some(why),
            News::Event(event) => {
                self.lost = None;
                push(&mut self.events, event, EVENTS);
            }
            News::Stats(stats) => self.stats(*stats),
            News::Status(status) => {
                self.stats(status.stats.clone());
                self.status = Some(*status);
            }
        }
    }

    /// Newest figures.
    pub fn newest(&self) -> Option<&Stats> {
        self.history.back()
    }

    fn stats(&mut self, stats: Stats) {
        self.lost = None;
        let last = self.history.back().map(|s| s.uptime_secs);
        match last {
            // Another daemon: its time begins anew.
            Some(last) if stats.uptime_secs < last - 1. => self.history.clear(),
            // The same second, heard twice: as telemetry and in `status`.
            Some(last) if stats.uptime_secs < last + 0.5 => return,
            _ => {}
        }
        push(&mut self.history, stats, HISTORY);
    }
}

fn push<T>(to: &mut VecDeque<T>, item: T, most: usize) {
    if to.len() == most {
        to.pop_front();
    }
    to.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uptime_secs: f64) -> News {
        News::Stats(Box::new(Stats { uptime_secs, ..Stats::default() }))
    }

    #[test]
    fn history_is_bounded_has_no_doubles_and_begins_anew_with_a_new_daemon() {
        let mut state = State::default();
        for i in 0..1000 {
            state.take(at(f64::from(i)));
            state.take(at(f64::from(i) + 0.1));
        }
        assert_eq!(state.history.len(), HISTORY);
        state.take(News::Lost("gone".into()));
        assert!(state.lost.is_some());
        state.take(at(0.5));
        assert!(state.lost.is_none());
        assert_eq!(state.history.len(), 1);
    }
}
