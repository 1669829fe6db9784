//! What the pages in `docs/` tell people to enter, so that tests enter the same.

use std::{fs, path::Path};

/// The part of a page under a heading, up to the next one like it.
#[track_caller]
pub fn section(page: &str, heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let section: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    assert!(!section.is_empty(), "{page} has no {heading}");
    section.join("\n")
}

/// The first piece of TOML in it.
#[track_caller]
pub fn toml(section: &str) -> String {
    let (_, rest) = section.split_once("```toml\n").expect("a piece of TOML");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// A field's value in its table.
#[track_caller]
pub fn field(section: &str, name: &str) -> String {
    let start = format!("| {name} |");
    let line = section.lines().find_map(|line| line.strip_prefix(&start)).expect(name);
    line.trim_matches(['|', ' ', '`']).to_owned()
}
