//! A complete model directory with small random networks, made in a moment.

#![allow(dead_code, reason = "each test program uses its own part of these helpers")]

use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, Source, UNet, UNetConfig,
    checkpoint::{FileEntry, Files, Manifest, Role, save},
    clip::{ClipText, ClipTextConfig},
    controlnet::ControlNetConfig,
    film::{Film, FilmConfig},
    taesd::{AutoencoderTiny, AutoencoderTinyConfig},
    vae::{AutoencoderKl, AutoencoderKlConfig},
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fs, path::Path};
use tch::{Device, Kind, Tensor};

/// Everything but the files.
const MANIFEST: &str = r#"
    family = "mini"
    name = "Tiny"
    licence = "MIT OR Apache-2.0"
    image = { width = 32, height = 16 }
    pose = { palette = "spread", relabel = true }
    defaults = { steps = 2, guidance_scale = 1.0, context_frames = 2 }
    scheduler = { beta_schedule = "linear" }
    files = {}

    [networks.vae]
    block_out_channels = [8, 16]
    norm_num_groups = 4
    layers_per_block = 1

    [networks.unet]
    block_out_channels = [32, 32]
    down_block_types = ["CrossAttnDownBlock3D", "DownBlock3D"]
    up_block_types = ["UpBlock3D", "CrossAttnUpBlock3D"]
    layers_per_block = 1
    norm_num_groups = 8
    cross_attention_dim = 12
    attention_head_dim = 4
    use_motion_module = true
    motion_module_resolutions = [1, 2]

    [networks.controlnet]
    block_out_channels = [32, 32]
    down_block_types = ["CrossAttnDownBlock2D", "DownBlock2D"]
    layers_per_block = 1
    norm_num_groups = 8
    cross_attention_dim = 12
    attention_head_dim = 4
    conditioning_embedding_out_channels = [8, 16]

    [networks.film]
    pyramid_levels = 4
    fusion_pyramid_levels = 3
    specialized_levels = 2
    sub_levels = 3
    filters = 4
    flow_convs = [1, 2, 2]
    flow_filters = [4, 4, 8]
"#;

fn table<T: DeserializeOwned>(table: &toml::Table) -> T {
    toml::Value::Table(table.clone()).try_into().expect("a network's configuration")
}

/// Fresh tensors by seed; those that training starts at zero get values too,
/// or nothing would have an effect. The seed is a number per tensor, so that
/// tests on other threads change nothing.
pub fn random(source: &Source, seed: u64) -> BTreeMap<String, Tensor> {
    let values = |(name, tensor): (String, Tensor)| {
        let mut state =
            name.bytes().fold(seed ^ 0x9e37_79b9, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let size = tensor.size();
        let fan_in = size.iter().skip(1).product::<i64>().max(1) as f32;
        let (middle, spread) = match name.as_str() {
            // FILM's pictures are about 0..1.
            "fuse.output_conv.bias" => (0.5, 0.0),
            name if name.contains("norm") && name.ends_with("weight") => (1.0, 0.2),
            _ if size.len() == 1 => (0.0, 0.2),
            _ => (0.0, 3.0 / fan_in.sqrt()),
        };
        let list: Vec<f32> = (0..tensor.numel()).map(|_| middle + spread * next()).collect();
        let keep = name.ends_with("pos_encoder.pe");
        (name, if keep { tensor.detach() } else { Tensor::from_slice(&list).view(size.as_slice()) })
    };
    source.tensors().into_iter().map(values).collect()
}

/// A manifest and the folder its files go to.
pub struct Tiny<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// The manifest so far.
    pub manifest: Manifest,
}

impl<'a> Tiny<'a> {
    /// The complete directory, its manifest written.
    pub fn new(dir: &'a Path) -> Self {
        let with_files = MANIFEST.replace("files = {}", &some_files());
        fs::write(dir.join("model.toml"), with_files).unwrap();
        let mut tiny = Self { dir, manifest: Manifest::read(&dir.join("model.toml")).unwrap() };
        let networks = tiny.manifest.networks.clone();
        let unet: UNetConfig = table(&networks.unet);
        tiny.add(Role::Vae, |s| {
            drop(AutoencoderKl::new(&s.root(), &table::<AutoencoderKlConfig>(&networks.vae)).unwrap())
        });
        tiny.add(Role::Unet, |s| drop(UNet::new(&s.root(), &unet).unwrap()));
        let controlnet: ControlNetConfig = table(&networks.controlnet);
        tiny.add(Role::Controlnet, |s| drop(ControlNet::new(&s.root(), &controlnet).unwrap()));
        tiny.add(Role::Appearance, |s| {
            drop(AppearanceEncoder::new(&s.root(), &unet, Fusion::Midup).unwrap())
        });
        let film: FilmConfig = table(networks.film.as_ref().unwrap());
        tiny.add(Role::Film, |s| drop(Film::new(&s.root(), &film).unwrap()));
        let text = |value: f64| Tensor::full([1, 3, 12], value, (Kind::Float, Device::Cpu));
        let names = [("conditional", 0.5), ("unconditional", -0.5)];
        tiny.put(Role::TextEmbedding, names.map(|(name, value)| (name.to_owned(), text(value))).into());
        tiny.write();
        tiny
    }

    /// Builds a network over fresh tensors and stores it.
    pub fn add(&mut self, role: Role, build: impl FnOnce(&Source)) {
        let source = Source::fresh(Device::Cpu);
        build(&source);
        self.put(role, random(&source, 1));
    }

    /// Stores tensors as the file of a role.
    pub fn put(&mut self, role: Role, tensors: BTreeMap<String, Tensor>) {
        let name = format!("{role}.safetensors");
        save(&self.dir.join(&name), &tensors, &BTreeMap::new(), None).unwrap();
        self.manifest.files.insert(role, Files::One(FileEntry::of(self.dir, &name).unwrap()));
    }

    /// Writes the manifest.
    pub fn write(&self) {
        fs::write(self.dir.join("model.toml"), self.manifest.to_toml().unwrap()).unwrap();
    }

    /// TAESD instead of the autoencoder.
    pub fn use_taesd(&mut self) {
        let text = "_class_name = \"AutoencoderTiny\"\nencoder_block_out_channels = [6, 6]\n\
            decoder_block_out_channels = [6, 6]\nnum_encoder_blocks = [1, 1]\nnum_decoder_blocks = [1, 1]";
        self.manifest.networks.vae = toml::from_str(text).unwrap();
        let config: AutoencoderTinyConfig = table(&self.manifest.networks.vae);
        self.add(Role::Vae, |s| drop(AutoencoderTiny::new(&s.root(), &config).unwrap()));
        self.write();
    }

    /// A text encoder instead of the stored embedding.
    pub fn use_text_encoder(&mut self) {
        let text = "hidden_size = 12\nnum_attention_heads = 2\nnum_hidden_layers = 1\nintermediate_size = 16\n\
            vocab_size = 9\nmax_position_embeddings = 5";
        let networks: toml::Table = toml::from_str(text).unwrap();
        let config: ClipTextConfig = table(&networks);
        self.manifest.networks.text_encoder = Some(networks);
        self.add(Role::TextEncoder, |s| drop(ClipText::new(&s.root(), &config).unwrap()));
        self.manifest.files.remove(&Role::TextEmbedding);
        self.write();
    }
}

/// Entries that satisfy the manifest's checks until the real ones are there.
fn some_files() -> String {
    let entry = format!("{{ path = \"none\", sha256 = \"{}\", size = 0 }}", "0".repeat(64));
    let roles = ["vae", "unet", "controlnet", "appearance", "text_embedding"];
    let entries = roles.map(|role| format!("{role} = {entry}"));
    format!("files = {{ {} }}", entries.join(", "))
}
