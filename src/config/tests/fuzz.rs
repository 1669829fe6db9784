//! Whatever is in a file: a configuration or an error, never a panic.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.toml");
        fs::write(&path, &bytes).unwrap();
        if let Ok(text) = read(&path) {
            let _ = parse(&text);
        }
    }

    #[test]
    fn any_text(text in "\\PC*") {
        let _ = parse(&text);
    }

    /// The shipped file with some bytes changed: deep enough to reach every rule.
    #[test]
    fn a_damaged_file(
        at in proptest::collection::vec((any::<proptest::sample::Index>(), any::<char>()), 1..6),
        enabled: bool,
    ) {
        let text = if enabled { shipped::enabled(DEFAULT) } else { DEFAULT.to_owned() };
        let mut letters: Vec<char> = text.chars().collect();
        for (index, letter) in at {
            let index = index.index(letters.len());
            letters[index] = letter;
        }
        let _ = parse(&letters.into_iter().collect::<String>());
    }

    /// Any value for any key of any table.
    #[test]
    fn any_value(
        section in any::<proptest::sample::Index>(),
        key in any::<proptest::sample::Index>(),
        kind in any::<proptest::sample::Index>(),
        value in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| format!("{n:?}").to_lowercase()),
            any::<bool>().prop_map(|flag| flag.to_string()),
            "[a-z~/:.0-9]{0,12}".prop_map(|text| format!("'{text}'")),
            Just("[1, 'a']".to_owned()),
            Just("{ a = 1 }".to_owned()),
            Just("2026-01-01".to_owned()),
        ],
    ) {
        let sections = &file::SECTIONS[1..];
        let (table, keys) = sections[section.index(sections.len())];
        let key = keys[key.index(keys.len())];
        let kinds: Vec<_> = kinds::SOURCES.iter().map(|k| k.name).chain(kinds::OUTPUTS.iter().map(|k| k.name)).collect();
        let kind = match table {
            "[sources.NAME]" | "[outputs.NAME]" if key != "kind" => format!("kind = '{}'", kinds[kind.index(kinds.len())]),
            _ => String::new(),
        };
        let text = format!("{table}\n{kind}\n{key} = {value}");
        if let Err(error) = parse(&text) {
            prop_assert!(error.to_string().lines().all(|line| line.len() < 2000));
        }
    }
}
