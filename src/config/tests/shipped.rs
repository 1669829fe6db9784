//! The commented defaults and the reference page hold what they say.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

use super::*;

/// The text with every setting that is off turned on.
pub fn enabled(text: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| on(line) + "\n").collect()
}

/// A folder with the files that the examples name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("slate.png", ""), ("srt-passphrase", "a passphrase"), ("token", "0123456789abcdef")]
    {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

fn parse_in(dir: &tempfile::TempDir, text: &str) -> Result<Config, String> {
    let config = super::super::parse(text, Some(&dir.path().join("k.toml")), &environment());
    config.map(|config| Config { file: None, ..config }).map_err(|error| error.to_string())
}

#[test]
fn as_shipped_it_is_the_built_in_defaults() {
    let built_in = super::super::parse("", None, &environment()).unwrap();
    assert_eq!(Config { file: None, ..good(DEFAULT) }, built_in);
}

/// Everything at once, and each section alone: one turned on must not need another.
#[test]
fn every_example_holds() {
    let dir = folder();
    parse_in(&dir, &enabled(DEFAULT)).unwrap();
    let sections = sections();
    assert!(sections.len() > 30, "{sections:?}");
    for section in sections.iter().filter(|section| section.is_off()) {
        let mut text = DEFAULT.to_owned();
        // A pipeline's own table comes with it.
        for lines in sections.iter().filter(|other| section.name.starts_with(&other.name)) {
            text = text.replace(&lines.text, &enabled(&lines.text));
        }
        let config = parse_in(&dir, &text).unwrap_or_else(|error| panic!("{}: {error}", section.name));
        // The pipeline that is there anyway, by name.
        if section.name != "pipelines.figure" {
            assert_ne!(config, parse_in(&dir, DEFAULT).unwrap(), "{} changes nothing", section.name);
        }
    }
}

#[derive(Debug)]
struct Section {
    /// `outputs.obs`
    name: String,
    text: String,
}

impl Section {
    fn is_off(&self) -> bool {
        self.text.starts_with('#')
    }
}

/// Cut where a header stands, on or off.
fn sections() -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for line in DEFAULT.lines() {
        let header = line.trim_start_matches('#').strip_prefix('[').filter(|_| !line.starts_with("# "));
        if let Some(header) = header {
            all.push(Section { name: header.trim_end_matches(']').into(), text: String::new() });
        }
        if let Some(last) = all.last_mut() {
            last.text += &format!("{line}\n");
        }
    }
    all
}

/// A setting that is off shows the default, or says that it is an example.
#[test]
fn values_that_are_off_are_defaults_unless_they_say_otherwise() {
    let dir = folder();
    let all = enabled(DEFAULT);
    let whole = parse_in(&dir, &all).unwrap();
    let lines: Vec<_> = all.lines().collect();
    let mut looked_at = 0;
    for (index, setting) in DEFAULT.lines().enumerate() {
        let off = setting.starts_with('#') && !setting.starts_with("# ") && setting.contains(" = ");
        if !off {
            continue;
        }
        looked_at += 1;
        let explained = lines[..index]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("# "))
            .any(|line| line.contains("Example"));
        let without: Vec<_> =
            lines.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, line)| *line).collect();
        match parse_in(&dir, &without.join("\n")) {
            // The section cannot do without it, so any value is an example.
            Err(_) => {}
            Ok(config) if explained => {
                assert_ne!(config, whole, "line {}: {setting} is the default", index + 1)
            }
            Ok(config) => assert_eq!(config, whole, "line {}: {setting} is not the default", index + 1),
        }
    }
    assert!(looked_at > 60, "{looked_at}");
}

#[test]
fn every_key_is_in_the_shipped_file_and_on_the_page() {
    let page = include_str!("../../../docs/configuration.md");
    let mut keys_of: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for section in &sections() {
        let table = section.name.split('.').next().unwrap();
        let table = if section.name.ends_with(".animation") { "animation" } else { table };
        let settings = section.text.lines().filter(|line| !line.starts_with("# "));
        let keys =
            settings.filter_map(|line| line.trim_start_matches('#').split_once(" = ")).map(|(key, _)| key);
        // Leaks nothing that matters: a test.
        let table: &str = Box::leak(table.to_owned().into_boxed_str());
        let keys: BTreeSet<&str> = keys.map(|key| &*Box::leak(key.to_owned().into_boxed_str())).collect();
        keys_of.push((table, keys));
    }
    for (section, keys) in file::SECTIONS {
        let table = section.trim_matches(['[', ']']).split('.').next().unwrap();
        assert!(
            page.contains(&format!("\n## `{section}`")) || section.is_empty(),
            "the page has no {section}"
        );
        for key in keys.iter().filter(|_| !section.is_empty()) {
            if (*section, *key) != ("[pipelines.NAME]", "animation") {
                let there = keys_of.iter().any(|(own, keys)| *own == table && keys.contains(key));
                assert!(there, "default.toml has no {key} in {section}");
            }
        }
        let heading = format!("\n## `{section}`");
        let part = if section.is_empty() { page } else { page.split(&heading).nth(1).unwrap_or_default() };
        let part = part.split("\n## ").next().unwrap();
        for key in keys.iter().filter(|_| !section.is_empty()) {
            assert!(part.contains(&format!("`{key}`")), "the page does not explain {key} in {section}");
        }
    }
    for kind in kinds::SOURCES.iter().map(|k| k.name).chain(kinds::OUTPUTS.iter().map(|k| k.name)) {
        assert!(page.contains(&format!("`{kind}`")), "the page does not name the kind {kind}");
        assert!(DEFAULT.contains(&format!("kind = \"{kind}\"")), "default.toml has no {kind}");
    }
    assert!(DEFAULT.contains("\npipeline = "));
}
