//! CLIP's tokenizer against transformers' (tokenizer/make_fixture.py made the numbers), and prompts through models.

mod tiny;

use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    LcmGenerator, ModelDir, Placement, Settings,
    checkpoint::{FileEntry, Files, Role},
    clip::ClipTextConfig,
    tokenizer::{ClipTokenizer, FILES},
};
use std::{fs, path::Path};
use tempfile::TempDir;
use tiny::Tiny;

const LENGTH: usize = 77;

fn fixture() -> serde_json::Value {
    serde_json::from_str(include_str!("tokenizer/fixture.json")).unwrap()
}

fn tokenizer(fixture: &serde_json::Value) -> ClipTokenizer {
    let lines: Vec<&str> =
        fixture["merges"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let (vocabulary, merges) = (fixture["vocabulary"].to_string(), lines.join("\n"));
    let files = (Path::new("vocab.json"), Path::new("merges.txt"));
    ClipTokenizer::new((files.0, vocabulary.as_bytes()), (files.1, merges.as_bytes())).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let fixture = fixture();
    let (tokenizer, cases) = (tokenizer(&fixture), fixture["cases"].as_array().unwrap());
    for case in cases {
        let prompt = case["prompt"].as_str().unwrap();
        let found = tokenizer.encode(prompt, LENGTH).unwrap();
        assert_eq!(serde_json::json!(found.ids), case["ids"], "{prompt:?}");
        let is_longer = case["tokens"].as_u64().unwrap() as usize > LENGTH;
        assert_eq!(!found.cut.is_empty(), is_longer, "{prompt:?}: cut {:?}", found.cut);
        assert!(prompt.trim_end().ends_with(&found.cut), "{prompt:?}: cut {:?}", found.cut);
    }
    let cut = cases.iter().filter(|case| case["tokens"].as_u64().unwrap() as usize > LENGTH).count();
    assert!(cases.len() > 40 && cut > 3, "{} prompts, {cut} cut", cases.len());
}

#[test]
fn what_is_cut_is_told() {
    let tokenizer = tokenizer(&fixture());
    let dancing = |count| vec!["dancing"; count].join(" ");
    assert_eq!(tokenizer.encode(&dancing(75), LENGTH).unwrap().cut, "");
    assert_eq!(tokenizer.encode(&(dancing(75) + "  In the Rain"), LENGTH).unwrap().cut, "In the Rain");
    let short = tokenizer.encode("dancing in the rain", 4).unwrap();
    assert_eq!((short.ids.len(), short.cut.as_str()), (4, "the rain"));
    // The empty prompt is what the text encoder's configuration says it is.
    let empty = tokenizer.encode("", LENGTH).unwrap();
    let vocab_size = fixture()["vocabulary"].as_object().unwrap().len() as i64;
    let config = ClipTextConfig { vocab_size, ..Default::default() };
    assert_eq!(empty.tensor(), config.empty_prompt());
    tokenizer.check(Path::new("vocab.json"), &config).unwrap();
    let other = ClipTextConfig { vocab_size: vocab_size + 1, ..config };
    let said = tokenizer.check(Path::new("vocab.json"), &other).unwrap_err().to_string();
    assert!(
        said.starts_with("vocab.json: its ") && said.contains("are not those of a text encoder"),
        "{said}"
    );
}

#[test]
fn files_of_something_else_are_refused() {
    let good = (r#"{"a":0,"a</w>":1,"<|startoftext|>":2,"<|endoftext|>":3}"#, "#version: 0.2\n");
    let new = |vocabulary: &str, merges: &[u8]| {
        ClipTokenizer::new((Path::new("V"), vocabulary.as_bytes()), (Path::new("M"), merges))
            .map(drop)
            .map_err(|e| e.to_string())
    };
    assert_eq!(new(good.0, good.1.as_bytes()), Ok(()));
    for (vocabulary, merges, words) in [
        ("[]", good.1.as_bytes(), "V: is no vocabulary"),
        (r#"{"a":-1}"#, good.1.as_bytes(), "V: is no vocabulary"),
        (r#"{"a":0}"#, good.1.as_bytes(), "V: has no <|startoftext|>"),
        (good.0, &b"\xff\xfe"[..], "M: is no list of merges"),
        (good.0, &b"#version: 0.2\na\n"[..], "M: line 2: not two pieces"),
        (good.0, &b"a a</w> a\n"[..], "M: line 1: not two pieces"),
        (good.0, &b"a b\n"[..], "M: does not belong to V"),
        (good.0, &b"a a</w>\n"[..], "M: does not belong to V"),
    ] {
        let said = new(vocabulary, merges).unwrap_err();
        assert!(said.starts_with(words), "{said}");
    }
}

/// Pieces and, at the ends where the small text encoder wants them, start and end.
const VOCABULARY: &str =
    r#"{"a":0,"b":1,"c":2,"a</w>":3,"b</w>":4,"c</w>":5,"ab</w>":6,"<|startoftext|>":7,"<|endoftext|>":8}"#;

fn add_tokenizer(tiny: &mut Tiny) {
    for (name, text) in FILES.into_iter().zip([VOCABULARY, "#version: 0.2\na b</w>\n"]) {
        fs::write(tiny.dir.join(name), text).unwrap();
    }
    let entries = FILES.map(|name| FileEntry::of(tiny.dir, name).unwrap());
    tiny.manifest.files.insert(Role::Tokenizer, Files::Many(entries.into()));
    tiny.write();
}

fn model(prepare: impl FnOnce(&mut Tiny)) -> (TempDir, ModelDir) {
    let folder = TempDir::new().unwrap();
    let mut tiny = Tiny::new(folder.path());
    prepare(&mut tiny);
    let model = ModelDir::load(folder.path()).unwrap();
    (folder, model)
}

fn generator(model: &ModelDir, prompt: &str) -> Result<LcmGenerator, String> {
    let settings = Settings { prompt: prompt.into(), ..Settings::of(model) };
    LcmGenerator::new(model, settings, Placement::default()).map_err(|e| e.to_string())
}

fn picture(generator: &mut LcmGenerator) -> Vec<u8> {
    let pose = Frame::filled(32, 16, [200, 30, 60]).unwrap();
    generator.generate(&pose, 0).unwrap().data().to_vec()
}

fn refer(generator: &mut LcmGenerator) {
    generator.set_reference(&Frame::filled(32, 16, [90, 160, 20]).unwrap()).unwrap();
}

#[test]
fn a_prompt_changes_key_frames_and_may_change_between_them() {
    let (_folder, model) = model(|tiny| {
        tiny.use_text_encoder();
        add_tokenizer(tiny);
    });
    assert!(model.verify(|_| ()).is_empty());
    let fresh = |prompt: &str| {
        let mut generator = generator(&model, prompt).unwrap();
        refer(&mut generator);
        picture(&mut generator)
    };
    let (none, ab, c) = (fresh(""), fresh("ab"), fresh("c c"));
    assert!(none != ab && ab != c && none != c);
    assert_eq!(none, fresh("  "), "spaces are no prompt");
    let mut generator = generator(&model, "").unwrap();
    refer(&mut generator);
    for (prompt, wanted) in [("", &none), ("ab", &ab), ("c c", &c), ("", &none)] {
        generator.set(Settings { prompt: prompt.into(), ..generator.settings().clone() }).unwrap();
        generator.reset();
        assert_eq!(&picture(&mut generator), wanted, "{prompt:?}");
    }
}

#[test]
fn models_that_take_no_prompt_say_so() {
    let (_stored, model_of_stored) = model(|_| ());
    let said = generator(&model_of_stored, "ab").err().unwrap();
    assert!(said.contains("Tiny takes no prompt: its text is stored with it"), "{said}");
    let mut running = generator(&model_of_stored, "").unwrap();
    let asked = Settings { prompt: "ab".into(), ..running.settings().clone() };
    assert!(running.set(asked).is_err() && running.settings().prompt.is_empty());

    let (_without, without) = model(|tiny| tiny.use_text_encoder());
    let said = generator(&without, "ab").err().unwrap();
    assert!(said.contains("it has no tokenizer"), "{said}");
    assert!(generator(&without, "").is_ok());
}

#[test]
fn a_damaged_tokenizer_is_named() {
    let (folder, model) = model(|tiny| {
        tiny.use_text_encoder();
        add_tokenizer(tiny);
    });
    fs::write(folder.path().join("vocab.json"), VOCABULARY.replace("\"c\"", "\"d\"")).unwrap();
    let problems: Vec<String> = model.verify(|_| ()).iter().map(ToString::to_string).collect();
    assert!(matches!(&problems[..], [one] if one.contains("vocab.json: its sha256 is")), "{problems:?}");
    let said = generator(&model, "ab").err().unwrap();
    assert!(said.contains("vocab.json: its sha256 is"), "{said}");

    // Whole, but of another text encoder.
    let folder = TempDir::new().unwrap();
    let mut tiny = Tiny::new(folder.path());
    tiny.use_text_encoder();
    add_tokenizer(&mut tiny);
    fs::write(folder.path().join("vocab.json"), VOCABULARY.replace("\"c\":2,", "")).unwrap();
    let entries = FILES.map(|name| FileEntry::of(folder.path(), name).unwrap());
    tiny.manifest.files.insert(Role::Tokenizer, Files::Many(entries.into()));
    tiny.write();
    let problems = ModelDir::load(folder.path()).unwrap().verify(|_| ());
    let said = problems.first().map(ToString::to_string).unwrap_or_default();
    assert!(said.contains("its 8 tokens"), "{said}");
}
