//! What systemd is told, where it started the daemon.

use std::time::Duration;

use sd_notify::NotifyState;

/// The watchdog is fed so many times in the time it allows.
const FEEDS: u32 = 3;

/// Tells the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    /// The status line told last.
    status: String,
    /// Frames sent when the watchdog was fed last.
    fed_at: u64,
}

impl Notify {
    /// Frames go out and clients are served.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// A new configuration is being applied; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("no monotonic clock: {error}"),
        }
    }

    /// The daemon ends.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
    }

    /// One line for `systemctl status`; told when it changes.
    pub fn status(&mut self, line: String) {
        if line != self.status {
            tell(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }

    /// Feeds the watchdog if frames were sent since the last time: `frames` in all. Not fed, it starts the daemon
    /// anew.
    pub fn feed(&mut self, frames: u64) {
        if frames > self.fed_at {
            self.fed_at = frames;
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// How often to feed the watchdog; `None` without one.
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    // As sd_watchdog_enabled(3) has it: without a process id it is meant for whoever reads it.
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let usec = number("WATCHDOG_USEC").filter(|usec| for_us && *usec > 0)?;
    Some(Duration::from_micros(usec) / FEEDS)
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!("the service manager cannot be told: {error}");
    }
}
