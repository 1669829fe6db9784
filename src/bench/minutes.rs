//! A live run minute by minute: whether memory stays flat, and when frames came late.

use std::fmt;

use serde_json::{Value, json};

use super::table::mib;

/// Sums since the start, and what the process holds, at one moment of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Since the start.
    pub seconds: f64,
    /// Pictures so far.
    pub output: u64,
    /// Late ones so far.
    pub late: u64,
    /// Ticks left out so far.
    pub dropped: u64,
    /// Bytes of memory held.
    pub resident: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// From pose to picture, p99 of the last 1,024 pictures, milliseconds.
    pub p99_ms: f64,
}

/// Samples at the start, at each full minute and at the end.
#[derive(Debug, Clone, Default)]
pub struct Minutes(Vec<Sample>);

/// One minute, or what is left at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minute {
    /// Its length.
    pub seconds: f64,
    /// Pictures in it.
    pub output: u64,
    /// Late ones.
    pub late: u64,
    /// Ticks left out.
    pub dropped: u64,
    /// Bytes held at its end.
    pub resident: u64,
    /// Latency at its end.
    pub p99_ms: f64,
}

impl Minutes {
    /// Whether the next full minute is over.
    pub fn is_due(&self, seconds: f64) -> bool {
        let minutes = self.0.len().saturating_sub(1);
        !self.0.is_empty() && seconds >= 60.0 * (minutes + 1) as f64
    }

    /// Adds a sample.
    pub fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The first sample.
    pub fn start(&self) -> Sample {
        self.0.first().copied().unwrap_or_default()
    }

    /// The last one.
    pub fn end(&self) -> Sample {
        self.0.last().copied().unwrap_or_default()
    }

    /// What happened from sample to sample.
    pub fn each(&self) -> Vec<Minute> {
        let between = |pair: &[Sample]| Minute {
            seconds: pair[1].seconds - pair[0].seconds,
            output: pair[1].output - pair[0].output,
            late: pair[1].late - pair[0].late,
            dropped: pair[1].dropped - pair[0].dropped,
            resident: pair[1].resident,
            p99_ms: pair[1].p99_ms,
        };
        self.0.windows(2).map(between).collect()
    }

    /// How much more memory is held at the end than after the first minute, percent; `None` before a second one.
    pub fn growth_percent(&self) -> Option<f64> {
        let [_, first, .., last] = self.0.as_slice() else { return None };
        (first.resident > 0).then(|| 100.0 * (last.resident as f64 / first.resident as f64 - 1.0))
    }

    /// The most memory that a sample saw.
    pub fn most_resident(&self) -> u64 {
        self.0.iter().map(|sample| sample.resident).max().unwrap_or(0)
    }

    /// For programs: resident bytes at the start and after each minute, and what happened in each.
    pub fn json(&self) -> Value {
        let minute = |minute: &Minute| {
            json!({
                "seconds": minute.seconds,
                "output_frames": minute.output,
                "late": minute.late,
                "dropped": minute.dropped,
                "resident_bytes": minute.resident,
                "latency_p99_ms": minute.p99_ms,
            })
        };
        let (start, end) = (self.start(), self.end());
        json!({
            "minutes": self.each().iter().map(minute).collect::<Vec<_>>(),
            "resident_bytes": {
                "start": start.resident,
                "end": end.resident,
                "max": self.most_resident(),
                "samples": self.0.iter().map(|sample| sample.resident).collect::<Vec<_>>(),
                "growth_percent_after_first_minute": self.growth_percent(),
            },
            "file_descriptors": { "start": start.files, "end": end.files },
            "threads": { "start": start.threads, "end": end.threads },
        })
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start(), self.end());
        let [first, last, most] = [start.resident, end.resident, self.most_resident()].map(mib);
        write!(f, "  memory: {first:.0} MiB at the start, {last:.0} MiB at the end, at most {most:.0} MiB")?;
        match self.growth_percent() {
            Some(percent) => writeln!(f, "; {percent:+.1} % after the first minute")?,
            None => writeln!(f)?,
        }
        writeln!(f, "  file descriptors: {} at the start, {} at the end", start.files, end.files)?;
        writeln!(f, "  threads: {} at the start, {} at the end", start.threads, end.threads)?;
        let minutes = self.each();
        if minutes.len() < 2 {
            return Ok(());
        }
        let columns = ["minute", "pictures", "late", "left out", "MiB", "p99 ms"];
        let [minute, pictures, late, left_out, memory, p99] = columns;
        writeln!(f, "\n  {minute:>6} {pictures:>9} {late:>6} {left_out:>9} {memory:>7} {p99:>7}")?;
        minutes.iter().enumerate().try_for_each(|(n, minute)| {
            let Minute { output, late, dropped, resident, p99_ms, .. } = minute;
            let memory = mib(*resident);
            writeln!(f, "  {:>6} {output:9} {late:6} {dropped:9} {memory:7.0} {p99_ms:7.0}", n + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(resident: &[u64]) -> Minutes {
        let mut minutes = Minutes::default();
        for (n, &resident) in resident.iter().enumerate() {
            let n = n as u64;
            let (output, late, dropped) = (1500 * n, n * n, 2 * n);
            let seconds = 60.0 * n as f64;
            minutes.push(Sample { seconds, output, late, dropped, resident, ..Sample::default() });
        }
        minutes
    }

    #[test]
    fn each_minute_has_its_own_counts() {
        let minutes = run(&[100, 200, 150, 210]);
        let each: Vec<_> = minutes.each().iter().map(|m| (m.output, m.late, m.dropped, m.resident)).collect();
        assert_eq!(each, [(1500, 1, 2, 200), (1500, 3, 2, 150), (1500, 5, 2, 210)]);
        assert_eq!(
            (minutes.start().resident, minutes.end().resident, minutes.most_resident()),
            (100, 210, 210)
        );
    }

    #[test]
    fn growth_counts_from_the_first_minute_on() {
        let percent = |resident: &[u64]| run(resident).growth_percent();
        assert_eq!(percent(&[]), None);
        assert_eq!(percent(&[100, 200]), None, "what is loaded in the first minute is no growth");
        assert_eq!(percent(&[100, 200, 200, 200]), Some(0.0));
        assert!(percent(&[100, 200, 300, 210]).is_some_and(|p| (p - 5.0).abs() < 1e-9));
        assert!(percent(&[100, 200, 150]).is_some_and(|p| (p + 25.0).abs() < 1e-9));
        assert_eq!(percent(&[0, 0, 0]), None, "where the kernel does not tell");
    }

    #[test]
    fn minutes_are_sampled_when_they_are_over() {
        let mut minutes = Minutes::default();
        assert!(!minutes.is_due(100.0), "not before it started");
        minutes.push(Sample::default());
        assert!(!minutes.is_due(59.9) && minutes.is_due(60.0));
        minutes.push(Sample { seconds: 60.02, ..Sample::default() });
        assert!(!minutes.is_due(119.9) && minutes.is_due(120.01), "a late sample does not shift the others");
    }

    #[test]
    fn the_report_names_what_grew() {
        let minutes = run(&[100 << 20, 200 << 20, 220 << 20]);
        let text = minutes.to_string();
        assert!(
            text.contains("100 MiB at the start, 220 MiB at the end, at most 220 MiB; +10.0 %"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 3 + 2 + 2, "{text}");
        let json = minutes.json();
        assert_eq!(json["resident_bytes"]["samples"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["minutes"][1]["late"], 3);
    }
}
