//! What the README and other pages point at is there, and says what it does.

use std::{fs, path::Path, process::Command};

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

/// On a machine without a GPU, too, and without fetching or writing anything.
#[test]
fn bench_gpu_tells_what_it_would_do() {
    let (cache, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dry_run = |options: &[&str]| {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("script/bench-gpu"))
            .args(["--dry-run", "--device", "cuda:97", "--out", out.path().to_str().unwrap()])
            .args(options)
            .env("KEYFRAMED_CACHE", cache.path())
            .env_remove("KEYFRAMED_TORCH_LIB")
            .output()
            .unwrap()
    };
    let output = dry_run(&[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let model = cache.path().join("random-512/kl");
    let run = format!("bf16-kl-pipelined: keyframed bench --model {} --device cuda:97", model.display());
    for line in ["GPU:     none", "PyTorch: ", "program: ", &run, "bench-gpu.json and "] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let runs = |said: &str| said.matches("keyframed bench ").count();
    assert_eq!(runs(&said), 14);
    assert_eq!(runs(&String::from_utf8(dry_run(&["--only", "context8"]).stdout).unwrap()), 2);
    assert!(!dry_run(&["--only", "none-such"]).status.success());
    for folder in [cache, out] {
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    }
}
