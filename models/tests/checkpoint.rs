//! Weight files and model directories, sound and broken.

#![allow(clippy::print_stdout, reason = "a skipped test must say so")]

use keyframed_models::{
    ModelError,
    checkpoint::{FileEntry, Files, Manifest, ModelDir, Role, WeightFile, save, sha256},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn some_tensors() -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        ("a.weight".to_owned(), Tensor::arange(12, CPU).view([3, 4])),
        ("b.count".to_owned(), Tensor::from(7i64)),
        ("c.half".to_owned(), Tensor::arange(5, CPU).to_kind(Kind::Half)),
        ("d.mask".to_owned(), Tensor::from_slice(&[1u8, 2, 3])),
        ("e.none".to_owned(), Tensor::zeros([0, 2], CPU)),
    ])
}

fn written(dir: &Path) -> PathBuf {
    let file = dir.join("some.safetensors");
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    save(&file, &some_tensors(), &metadata, None).unwrap();
    file
}

#[test]
fn what_is_saved_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path());
    let read = WeightFile::read(&file).unwrap();
    assert_eq!(read.metadata["format"], "pt");
    let wanted = some_tensors();
    assert_eq!(read.tensors.len(), wanted.len());
    for (name, tensor) in &wanted {
        assert_eq!(read.tensors[name].kind(), tensor.kind(), "{name}");
        assert_eq!(read.tensors[name], *tensor, "{name}");
    }
    // libtorch's own reader agrees.
    let other: BTreeMap<_, _> = Tensor::read_safetensors(&file).unwrap().into_iter().collect();
    assert_eq!(other["a.weight"], wanted["a.weight"]);
    assert!(!dir.path().join("some.safetensors.part").exists());
}

#[test]
fn saving_can_halve_floats_and_leaves_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("half.safetensors");
    let tensors = some_tensors();
    save(&file, &tensors, &BTreeMap::new(), Some(Kind::Half)).unwrap();
    let read = WeightFile::read(&file).unwrap().tensors;
    assert_eq!(read["a.weight"], tensors["a.weight"].to_kind(Kind::Half));
    assert_eq!(read["b.count"].kind(), Kind::Int64);
    // Weights in training are parameters, and may be views.
    let parameter = Tensor::randn([4, 6], CPU).set_requires_grad(true);
    let view = BTreeMap::from([("t".to_owned(), parameter.transpose(0, 1))]);
    save(&file, &view, &BTreeMap::new(), None).unwrap();
    assert_eq!(WeightFile::read(&file).unwrap().tensors["t"], parameter.detach().transpose(0, 1));
}

#[track_caller]
fn refused(result: keyframed_models::Result<WeightFile>, words: &[&str]) {
    let error = result.expect_err("the file is broken").to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(!error.contains('\n'), "one line: {error}");
}

#[test]
fn broken_files_are_named_and_so_are_their_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(written(dir.path())).unwrap();
    let read = |bytes: &[u8]| {
        let file = dir.path().join("broken.safetensors");
        fs::write(&file, bytes).unwrap();
        WeightFile::read(&file)
    };
    refused(WeightFile::read(&dir.path().join("absent.safetensors")), &["absent.safetensors"]);
    refused(WeightFile::read(dir.path()), &["not a file"]);
    refused(read(&[]), &["broken.safetensors", "0 bytes"]);
    refused(read(&good[..7]), &["not a safetensors file"]);
    refused(read(&good[..20]), &["cut short", "header"]);
    refused(read(&good[..good.len() - 1]), &["cut short", "1 bytes are missing", "tensor `"]);
    let longer = [good.as_slice(), &[0; 3]].concat();
    refused(read(&longer), &["3 bytes follow"]);
    refused(read(b"this is a text, not a weight file at all"), &["not a safetensors file"]);
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(read(&huge), &["not a safetensors file", "header"]);
    let mut scribbled = good.clone();
    scribbled[12..20].fill(b'#');
    refused(read(&scribbled), &["not a safetensors file", "broken.safetensors"]);
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn headers_are_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("header.safetensors");
    let read = |header: &str, data: &[u8]| {
        fs::write(&file, with_header(header, data)).unwrap();
        WeightFile::read(&file)
    };
    let entry = |dtype: &str, shape: &str, end: &str| {
        format!(r#"{{"x.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    assert!(read(&entry("F32", "[2]", "8"), &[0; 8]).is_ok());
    refused(read(&entry("F32", "[3]", "8"), &[0; 8]), &["header"]);
    refused(read(&entry("F32", "[-1]", "8"), &[0; 8]), &["header"]);
    refused(read(&entry("F99", "[2]", "8"), &[0; 8]), &["header"]);
    refused(read(&entry("F32", "[4611686018427387904,4]", "8"), &[0; 8]), &["header"]);
    refused(read(&entry("F32", "[2]", "18446744073709551615"), &[0; 8]), &["header"]);
    refused(read(&entry("F8_E4M3", "[8]", "8"), &[0; 8]), &["x.weight", "not supported"]);
    let nan = [f32::NAN.to_le_bytes(), 1f32.to_le_bytes()].concat();
    refused(read(&entry("F32", "[2]", "8"), &nan), &["x.weight", "not numbers"]);
    refused(read(&entry("F16", "[1]", "2"), &[0, 0x7c]), &["x.weight", "not numbers"]);
    refused(read("[]", &[]), &["header"]);
    assert!(read("{}", &[]).unwrap().tensors.is_empty());
}

#[test]
fn checksums_tell_files_apart() {
    let dir = tempfile::tempdir().unwrap();
    let abc = dir.path().join("abc");
    fs::write(&abc, "abc").unwrap();
    // FIPS 180-2, appendix B.1.
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(&abc).unwrap(), known);
    let file = written(dir.path());
    let digest = sha256(&file).unwrap();
    assert!(WeightFile::read_checked(&file, &digest.to_uppercase()).is_ok());
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    refused(WeightFile::read_checked(&file, &digest), &["some.safetensors", "sha256", &digest]);
}

/// A model directory with tiny files that no network fits: enough for everything but building.
fn model(dir: &Path) -> Manifest {
    let roles = [Role::Vae, Role::Unet, Role::Controlnet, Role::Appearance, Role::TextEmbedding];
    let mut files = BTreeMap::new();
    for role in roles {
        let name = format!("{role}.safetensors");
        let tensors = BTreeMap::from([(format!("{role}.weight"), Tensor::ones([2], CPU))]);
        save(&dir.join(&name), &tensors, &BTreeMap::new(), None).unwrap();
        files.insert(role, Files::One(FileEntry::of(dir, &name).unwrap()));
    }
    let text = r#"
        family = "mini"
        name = "Test"
        licence = "MIT"
        image = { width = 64, height = 128 }
        pose = { palette = "spread", relabel = true }
        fusion_blocks = "full"
        defaults = { steps = 4, guidance_scale = 1.0 }
        scheduler = { prediction_type = "v_prediction" }
        networks = { vae = { latent_channels = 4 }, unet = {}, controlnet = {} }
        files = { vae = { path = "v", sha256 = "SHA", size = 1 }, unet = { path = "v", sha256 = "SHA", size = 1 },
          controlnet = { path = "v", sha256 = "SHA", size = 1 }, appearance = { path = "v", sha256 = "SHA", size = 1 },
          text_embedding = [{ path = "v", sha256 = "SHA", size = 1, prefix = "p" }] }
        provenance = { trained = "nowhere", steps = 3 }
    "#;
    // TOML forbids line breaks within inline tables.
    let text = text.replace(",\n          ", ", ").replace("SHA", &"0".repeat(64));
    let file = dir.join("model.toml");
    fs::write(&file, text).unwrap();
    let manifest = Manifest { files, ..Manifest::read(&file).unwrap() };
    fs::write(&file, manifest.to_toml().unwrap()).unwrap();
    manifest
}

#[test]
fn a_model_directory_is_opened_verified_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = model(dir.path());
    let found = ModelDir::load(dir.path()).unwrap();
    assert_eq!(*found.manifest(), manifest);
    assert_eq!(ModelDir::load(dir.path().join("model.toml")).unwrap().dir(), dir.path());
    assert_eq!(ModelDir::find(&dir.path().display().to_string()).unwrap().dir(), dir.path());
    let mut seen = 0;
    let problems = found.verify(|_| seen += 1);
    assert_eq!(seen, manifest.files.len());
    let unasked = |p: &ModelError| p.to_string().contains("`unet.weight` belongs to no part");
    assert!(problems.iter().any(unasked), "nothing here fits a network: {problems:?}");
    let source = found.source(Role::Unet, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(source.unused(), ["unet.weight"]);
    assert!(found.tensors(Role::Film).unwrap_err().to_string().contains("`film` is missing"));
    assert_eq!(found.unet(1.0, Device::Cpu, Kind::Float).unwrap().unused(), ["unet.weight"]);
}

#[test]
fn several_files_are_laid_over_each_other_with_their_prefixes() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = model(dir.path());
    for (name, value) in [("first", 1.0), ("second", 2.0)] {
        let tensors = BTreeMap::from([
            ("same".to_owned(), Tensor::from(value)),
            (name.to_owned(), Tensor::from(value)),
        ]);
        save(&dir.path().join(name), &tensors, &BTreeMap::new(), None).unwrap();
    }
    let entry = |name: &str| FileEntry::of(dir.path(), name).unwrap();
    let prefixed = FileEntry { prefix: Some("half".into()), ..entry("second") };
    manifest.files.insert(Role::Unet, Files::Many(vec![entry("first"), entry("second"), prefixed]));
    fs::write(dir.path().join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    let tensors = ModelDir::load(dir.path()).unwrap().tensors(Role::Unet).unwrap();
    let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    assert_eq!(names, ["first", "half.same", "half.second", "same", "second"]);
    assert_eq!(tensors["same"].double_value(&[]), 2.0);
}

#[test]
fn damaged_models_are_noticed_at_the_right_moment() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    let file = dir.path().join("vae.safetensors");
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&file, flipped).unwrap();
    let found = ModelDir::load(dir.path()).unwrap();
    let problems = found.verify(|_| ());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("vae.safetensors"), "{}", problems[0]);
    assert!(found.tensors(Role::Vae).is_err());
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    let error = ModelDir::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("vae.safetensors") && error.contains("bytes"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(matches!(ModelDir::load(dir.path()), Err(ModelError::Io { file: named, .. }) if named == file));
}

#[test]
fn wrong_manifests_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    let file = dir.path().join("model.toml");
    let good = fs::read_to_string(&file).unwrap();
    let cases = [
        ("family = \"mini\"", "familly = \"mini\"", "familly"),
        ("path = \"vae.safetensors\"", "path = \"../vae.safetensors\"", "within the model directory"),
        ("path = \"vae.safetensors\"", "path = \"/etc/passwd\"", "within the model directory"),
        ("width = 64", "width = 0", "image"),
        ("width = 64", "width = 100000", "image"),
        ("steps = 4", "steps = 0", "steps"),
        ("steps = 4", "steps = 4\ncontext_frames = 24", "context_frames"),
        ("palette = \"spread\"", "palette = \"rainbow\"", "rainbow"),
        ("[files.appearance]", "[files.lora]", "`appearance` is missing"),
        ("[files.text_embedding]", "[files.film]", "text_embedding"),
        ("sha256 = \"", "sha256 = \"zz", "hexadecimal"),
    ];
    for (from, to, word) in cases {
        assert!(good.contains(from), "{from} in\n{good}");
        fs::write(&file, good.replace(from, to)).unwrap();
        let error = Manifest::read(&file).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("model.toml"), "{error}");
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(Manifest::read(&file).is_err());
}

#[test]
fn an_unknown_model_says_where_it_was_looked_for() {
    let error = ModelDir::find("no-such-model").unwrap_err().to_string();
    assert!(error.contains("no-such-model") && error.contains("KEYFRAMED_MODELS"), "{error}");
    assert!(ModelDir::find("/no/such/folder").is_err());
}

/// Networks that a manifest describes are built over nothing when files are compared with them; without
/// limits this would take hours, all memory, or a panic of libtorch.
#[test]
fn networks_beyond_all_sense_are_refused() {
    let with = |network: &str, key: &str, value: toml::Value| {
        let mut manifest = keyframed_models::random::full_size().unwrap();
        let networks = &mut manifest.networks;
        let table = match network {
            "vae" => &mut networks.vae,
            "unet" => &mut networks.unet,
            "controlnet" => &mut networks.controlnet,
            "film" => networks.film.get_or_insert_default(),
            _ => networks.text_encoder.get_or_insert_default(),
        };
        table.insert(key.to_owned(), value);
        manifest
    };
    let many = |n: i64, times: usize| toml::Value::Array(vec![n.into(); times]);
    let motion = |key: &str, n: i64| toml::Value::Table(toml::Table::from_iter([(key.to_owned(), n.into())]));
    let cases: [(Role, &str, toml::Value); 13] = [
        (Role::Unet, "layers_per_block", 60_000.into()),
        (Role::Unet, "layers_per_block", 1_000_000_000_000i64.into()),
        (Role::Unet, "cross_attention_dim", (-5).into()),
        (Role::Unet, "cross_attention_dim", 0.into()),
        (Role::Unet, "block_out_channels", many(320, 60)),
        (Role::Unet, "motion_module_kwargs", motion("num_transformer_block", 60_000)),
        (Role::Unet, "motion_module_kwargs", motion("temporal_position_encoding_max_len", 60_000)),
        (Role::Vae, "latent_channels", i64::MAX.into()),
        (Role::Vae, "layers_per_block", 60_000.into()),
        (Role::Vae, "scaling_factor", f64::NAN.into()),
        (Role::Controlnet, "conditioning_embedding_out_channels", many(16, 60)),
        (Role::Film, "flow_convs", many(60_000, 4)),
        (Role::TextEncoder, "num_hidden_layers", 60_000.into()),
    ];
    for (role, key, value) in cases {
        let manifest = with(&role.to_string(), key, value.clone());
        let error = manifest.shapes(role).expect_err(key).to_string();
        let inner = value.as_table().and_then(|table| table.keys().next().cloned());
        let named = inner.is_some_and(|inner| error.contains(&inner)) || error.contains(key);
        assert!(named || error.contains("60000 blocks"), "{key}: {error}");
    }
    for role in [Role::Vae, Role::Unet, Role::Controlnet, Role::Appearance, Role::Film, Role::TextEncoder] {
        let asked = keyframed_models::random::full_size().unwrap().shapes(role).unwrap();
        assert!(asked.len() > 50, "{role}: {}", asked.len());
    }
}
