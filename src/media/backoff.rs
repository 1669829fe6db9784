//! Pauses between attempts: each failure doubles the pause, a while without failure starts over.

use std::time::Duration;

/// Who ran for so long before failing has earned the shortest pause.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The next pause.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    good: Duration,
}

impl Backoff {
    /// Pauses from the first to the second of `range`.
    pub fn new(range: (Duration, Duration)) -> Self {
        let min = range.0.max(Duration::from_millis(10));
        Self { min, max: range.1.max(min), next: min, good: GOOD_RUN }
    }

    /// With another length of a good run.
    #[cfg(test)]
    pub fn with_good_run(self, good: Duration) -> Self {
        Self { good, ..self }
    }

    /// How long to wait after an attempt that ran for `ran`: since it was known to work, not since it was begun.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= self.good {
            self.next = self.min;
        }
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn doubles_up_to_the_longest() {
        let mut backoff = Backoff::new((ms(100), ms(350)));
        let pauses = [0; 4].map(|ran| backoff.after(ms(ran)));
        assert_eq!(pauses, [ms(100), ms(200), ms(350), ms(350)]);
    }

    #[test]
    fn starts_over_after_a_good_run() {
        let mut backoff = Backoff::new((ms(100), ms(1000)));
        backoff.after(ms(0));
        backoff.after(ms(0));
        assert_eq!(backoff.after(GOOD_RUN), ms(100));
        assert_eq!(backoff.after(ms(0)), ms(200));
    }

    #[test]
    fn survives_a_range_upside_down() {
        let mut backoff = Backoff::new((ms(500), ms(1)));
        assert_eq!([backoff.after(ms(0)), backoff.after(ms(0))], [ms(500); 2]);
    }
}
