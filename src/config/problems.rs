//! What is wrong with a configuration: everything at once, in the file's order.

use std::{fmt, ops::Range};

use super::mask::masked;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// In the file, counted from 1; `None` if no line is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is wrong, where, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Collects them while a file is read.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    /// Where lines begin, as byte offsets.
    lines: Vec<usize>,
}

impl Problems {
    /// For a file with this text.
    pub fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { found: Vec::new(), lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// Number of the line that a span begins in.
    pub fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    /// Notes a problem.
    pub fn add(&mut self, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.found.push(Problem { line: line.into(), message: masked(&message.into()) });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them by line; those without one last.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        // Two pipelines may inherit the same mistake.
        let mut seen = std::collections::HashSet::new();
        self.found.retain(|problem| seen.insert((problem.line, problem.message.clone())));
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let problems = Problems::new("a\nbc\n\nd");
        let lines: Vec<_> = (0..7).map(|at| problems.line(&(at..at))).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4]);
    }
}
