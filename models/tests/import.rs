//! Importing published folders, here with small networks in the published layout.

mod tiny;

use keyframed_models::{
    ModelDir,
    checkpoint::{FileEntry, Files, Parts, Progress, Role, import, save},
    scheduler::{BetaSchedule, SamplerClass},
    tokenizer::ClipTokenizer,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};
use tiny::Tiny;

/// As many pieces as the small text encoder has tokens.
const VOCABULARY: &str =
    r#"{"a":0,"b":1,"c":2,"a</w>":3,"b</w>":4,"c</w>":5,"ab</w>":6,"<|startoftext|>":7,"<|endoftext|>":8}"#;

type Tensors = BTreeMap<String, Tensor>;

fn store(file: &Path, tensors: &Tensors) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    save(file, tensors, &BTreeMap::new(), None).unwrap();
}

fn renamed(tensors: Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(key, tensor)| (name(&key), tensor)).collect()
}

/// A small model, and the folders that it would be published as.
struct Published {
    _folder: tempfile::TempDir,
    root: PathBuf,
    model: ModelDir,
    parts: Parts,
}

impl Published {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let dir = root.join("tiny");
        fs::create_dir(&dir).unwrap();
        let mut tiny = Tiny::new(&dir);
        tiny.use_text_encoder();
        let networks = tiny.manifest.networks.clone();
        let model = ModelDir::load(&dir).unwrap();
        let (sd15, magic) = (root.join("sd15"), root.join("MagicAnimate"));
        let put = |folder: &Path, table: &toml::Table, tensors: Tensors| {
            store(&folder.join("diffusion_pytorch_model.safetensors"), &tensors);
            let mut json = serde_json::to_value(table).unwrap();
            json["_class_name"] = "AsPublished".into();
            fs::write(folder.join("config.json"), json.to_string()).unwrap();
        };
        let mut unet = networks.unet.clone();
        unet.remove("use_motion_module");
        let (motion, spatial): (Tensors, Tensors) = model
            .tensors(Role::Unet)
            .unwrap()
            .into_iter()
            .partition(|(key, _)| key.contains("motion_modules"));
        put(&sd15.join("unet"), &unet, spatial);
        // The published file has more than motion modules, under longer names.
        let mut temporal = renamed(motion, |key| format!("module.unet.{key}"));
        temporal
            .insert("module.unet.conv_in.bias".into(), Tensor::full([32], 0.25, (Kind::Float, Device::Cpu)));
        temporal.insert("module.loss.weight".into(), Tensor::from(1.0f32));
        store(&magic.join("temporal_attention/temporal_attention.ckpt"), &temporal);
        let of = |role| model.tensors(role).unwrap();
        put(&magic.join("densepose_controlnet"), &networks.controlnet, of(Role::Controlnet));
        put(&magic.join("appearance_encoder"), &unet, of(Role::Appearance));
        let mut text = of(Role::TextEncoder);
        text.insert("text_model.embeddings.position_ids".into(), Tensor::from_slice(&[0i64, 1, 2]));
        put(&sd15.join("text_encoder"), networks.text_encoder.as_ref().unwrap(), text);
        fs::create_dir(sd15.join("tokenizer")).unwrap();
        for (name, text) in [("vocab.json", VOCABULARY), ("merges.txt", "#version: 0.2\na b</w>\n")] {
            fs::write(sd15.join("tokenizer").join(name), text).unwrap();
        }
        let old = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        let old_name = |key: &str| {
            old.iter()
                .fold(key.to_owned(), |key, (new, old)| key.replace(&format!(".{new}."), &format!(".{old}.")))
        };
        put(&sd15.join("vae"), &networks.vae, renamed(of(Role::Vae), old_name));
        let parts = Parts {
            sd15,
            magicanimate: magic,
            vae: None,
            taesd: None,
            lcm_lora: None,
            film: None,
            kind: Kind::Float,
        };
        Self { _folder: folder, root, model, parts }
    }

    /// What an import that fails says; it leaves nothing.
    fn refused(&self, parts: &Parts) -> String {
        let to = self.root.join("refused");
        let said = import(parts, &to, |_| ()).unwrap_err().to_string();
        assert!(!to.exists());
        let left = fs::read_dir(&self.root)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".import"));
        assert_eq!(left.count(), 0, "{said}");
        said
    }

    fn put(&self, name: &str, tensors: &[(&str, Tensor)]) -> PathBuf {
        let file = self.root.join(name);
        let tensors = tensors.iter().map(|(key, t)| ((*key).to_owned(), t.shallow_clone())).collect();
        store(&file, &tensors);
        file
    }
}

#[test]
fn published_folders_become_a_model() {
    let published = Published::new();
    let (mut said, mut bytes, to) = (Vec::new(), Vec::new(), published.root.join("models/new"));
    let report = |progress: Progress| match progress {
        Progress::Said(line) => said.push(line.to_owned()),
        Progress::Written(done, total) => bytes.push((done, total)),
    };
    let model = import(&published.parts, &to, report).unwrap();
    let (done, total) = *bytes.last().unwrap();
    assert!(bytes.is_sorted() && done == total, "{bytes:?}");
    assert!(model.verify(|_| ()).is_empty());
    assert_eq!((model.manifest().family.as_str(), model.manifest().name.as_str()), ("magicanimate", "new"));
    for role in [Role::Vae, Role::Controlnet, Role::Appearance, Role::TextEncoder, Role::Unet] {
        let (found, wanted) = (model.tensors(role).unwrap(), published.model.tensors(role).unwrap());
        assert!(found.keys().eq(wanted.keys()), "{role}");
        for (key, tensor) in &found {
            let replaced = role == Role::Unet && key == "conv_in.bias";
            let right =
                if replaced { tensor.eq(0.25).all().int64_value(&[]) == 1 } else { *tensor == wanted[key] };
            assert!(right, "{role} {key}");
        }
    }
    let (scheduler, defaults) = (&model.manifest().scheduler, &model.manifest().defaults);
    let sampling = (scheduler.class, scheduler.beta_schedule, defaults.steps, defaults.guidance_scale);
    assert_eq!(sampling, (SamplerClass::Ddim, BetaSchedule::Linear, 25, 7.5));
    let from = model.manifest().provenance["unet"].as_table().unwrap();
    let motion = from["temporal_attention/temporal_attention.ckpt"].as_array().unwrap();
    assert!(motion.iter().any(|key| key.as_str() == Some("conv_in.bias")));
    let spatial = from["unet/diffusion_pytorch_model.safetensors"].as_array().unwrap();
    assert!(spatial.iter().any(|key| key.as_str() == Some("conv_in.weight")));
    assert!(said.iter().any(|line| line.ends_with(" 1 not of the U-Net")), "{said:?}");

    let half = Parts { kind: Kind::Half, ..published.parts.clone() };
    let model = import(&half, &published.root.join("half"), |_| ()).unwrap();
    assert!(model.tensors(Role::Unet).unwrap().values().all(|t| t.kind() == Kind::Half));
    let again = import(&half, &published.root.join("half"), |_| ()).unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
}

#[test]
fn the_tokenizer_comes_along() {
    let published = Published::new();
    let model = import(&published.parts, &published.root.join("new"), |_| ()).unwrap();
    let entries = model.manifest().files[&Role::Tokenizer].entries();
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["vocab.json", "merges.txt"]);
    assert_eq!(entries[0].size, VOCABULARY.len() as u64);
    assert!(model.manifest().provenance["tokenizer"].get("tokenizer/vocab.json").is_some());
    ClipTokenizer::of(&model).unwrap();

    let folder = published.parts.sd15.join("tokenizer");
    fs::write(folder.join("vocab.json"), VOCABULARY.replace("\"c\":2,", "")).unwrap();
    let other = published.refused(&published.parts);
    assert!(other.contains("tokenizer/vocab.json: its 8 tokens"), "{other}");
    fs::remove_file(folder.join("merges.txt")).unwrap();
    let missing = published.refused(&published.parts);
    assert!(missing.contains("tokenizer/merges.txt: "), "{missing}");
    fs::remove_dir_all(folder).unwrap();
    let without = import(&published.parts, &published.root.join("without"), |_| ()).unwrap();
    assert!(!without.has(Role::Tokenizer));
}

#[test]
fn a_lora_for_this_network_comes_along() {
    let published = Published::new();
    let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v";
    let matrix = |shape: [i64; 2]| Tensor::full(shape, 0.3, (Kind::Float, Device::Cpu));
    let file = |name: &str, module: &str, width: i64| {
        let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
        published.put(name, &[(&down, matrix([2, width])), (&up, matrix([32, 2]))])
    };
    let with = |lora: PathBuf| Parts { lcm_lora: Some(lora), ..published.parts.clone() };
    let model =
        import(&with(file("lora.safetensors", module, 32)), &published.root.join("new"), |_| ()).unwrap();
    assert_eq!(model.tensors(Role::Lora).unwrap().len(), 2);
    assert_eq!((model.manifest().scheduler.class, model.manifest().defaults.steps), (SamplerClass::Lcm, 4));
    let other = published.refused(&with(file("other.safetensors", module, 640)));
    assert!(other.contains("shapes"), "{other}");
    let unknown =
        published.refused(&with(file("sdxl.safetensors", "lora_unet_input_blocks_4_1_proj_in", 32)));
    assert!(unknown.contains("does not exist in the network"), "{unknown}");
}

#[test]
fn what_does_not_belong_together_is_named() {
    let published = Published::new();
    let parts = |change: fn(&mut Parts, PathBuf), file: PathBuf| {
        let mut parts = published.parts.clone();
        change(&mut parts, file);
        parts
    };
    let missing = published.refused(&parts(|p, f| p.sd15 = f, published.root.join("nowhere")));
    assert!(missing.contains("nowhere/unet") && missing.contains("holds no weights"), "{missing}");
    let film = published.put("film.safetensors", &[("extract.x", Tensor::from(1.0f32))]);
    let said = published.refused(&parts(|p, f| p.film = Some(f), film));
    assert!(said.contains("film.safetensors") && said.contains("is missing"), "{said}");

    let unet = published.parts.sd15.join("unet/diffusion_pytorch_model.safetensors");
    let sound = fs::read(&unet).unwrap();
    for (width, name) in [(1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")] {
        let key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
        published.put(
            "sd15/unet/diffusion_pytorch_model.safetensors",
            &[(key, Tensor::zeros([4, width], (Kind::Float, Device::Cpu)))],
        );
        let said = published.refused(&published.parts);
        assert!(said.contains(&format!("this is {name};")), "{said}");
    }
    fs::write(&unet, &sound[..sound.len() / 2]).unwrap();
    let cut = published.refused(&published.parts);
    assert!(cut.contains("cut short"), "{cut}");
    fs::write(&unet, sound).unwrap();
    let motion = published.parts.magicanimate.join("temporal_attention/temporal_attention.ckpt");
    store(&motion, &BTreeMap::from([("loss.weight".to_owned(), Tensor::from(1.0f32))]));
    let empty = published.refused(&published.parts);
    assert!(empty.contains("nothing of a U-Net"), "{empty}");
}

#[test]
fn values_that_are_no_numbers_or_do_not_fit_leave_nothing_behind() {
    let published = Published::new();
    let file = published.parts.sd15.join("vae/diffusion_pytorch_model.safetensors");
    let sound: Tensors = Tensor::read_safetensors(&file).unwrap().into_iter().collect();
    for (value, kind, said) in [
        (f64::NAN, Kind::Float, "not numbers"),
        (f64::INFINITY, Kind::BFloat16, "not numbers"),
        (1e6, Kind::Half, "does not fit into Half"),
    ] {
        let mut tensors: Tensors = sound.iter().map(|(key, t)| (key.clone(), t.copy())).collect();
        let _ = tensors.get_mut("encoder.conv_in.bias").unwrap().fill_(value);
        store(&file, &tensors);
        let refused = published.refused(&Parts { kind, ..published.parts.clone() });
        assert!(refused.contains("`encoder.conv_in.bias`") && refused.contains(said), "{refused}");
    }
}

#[test]
fn verifying_names_every_mismatch() {
    let published = Published::new();
    let model = import(&published.parts, &published.root.join("model"), |_| ()).unwrap();
    let file = model.dir().join("controlnet.safetensors");
    let mut tensors = model.tensors(Role::Controlnet).unwrap();
    let names: Vec<String> = tensors.keys().take(2).cloned().collect();
    tensors.remove(&names[0]);
    tensors.insert(names[1].clone(), Tensor::zeros([1, 2], (Kind::Float, Device::Cpu)));
    tensors.insert("more.weight".into(), Tensor::from(1.0f32));
    tensors.insert("conv_in.bias".into(), Tensor::zeros([32], (Kind::Int64, Device::Cpu)));
    store(&file, &tensors);
    let mut manifest = model.manifest().clone();
    let entry = FileEntry::of(model.dir(), "controlnet.safetensors").unwrap();
    manifest.files.insert(Role::Controlnet, Files::One(entry));
    fs::write(model.dir().join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    let problems = ModelDir::load(model.dir()).unwrap().verify(|_| ());
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let told = |name: &str, what: &str| {
        let right = |line: &&String| line.contains("controlnet.safetensors") && line.contains(name);
        problems.iter().filter(right).filter(|line| line.contains(what)).count() == 1
    };
    assert!(told(&names[0], "is missing") && told(&names[1], "has shape [1, 2]"), "{problems:#?}");
    assert!(told("`more.weight`", "no part") && told("`conv_in.bias`", "dtype Int64"), "{problems:#?}");
    assert_eq!(problems.len(), 4, "{problems:#?}");
}
