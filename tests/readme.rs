//! What the README points at is there.

use std::{fs, path::Path};

#[test]
fn links_and_paths_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let known = ["script/", "pipelines/", "models/", "crates/", "src/", "docs/", ".ci/", "plugins/"];
        let words = text.split(|c: char| c.is_whitespace() || "`()[]=,;".contains(c));
        let paths = words
            .map(|word| word.trim_end_matches(['.', ':']))
            .filter(|word| known.iter().any(|k| word.starts_with(k)));
        for target in links.filter(|link| !link.contains("://")).chain(paths) {
            assert!(root.join(target).exists(), "{page} names {target}");
        }
    }
}
