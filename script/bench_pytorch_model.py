"""A model directory's networks as the original's classes, for script/bench-pytorch."""

import hashlib
import inspect
import re
import shutil
import sys
import tomllib

import torch
from safetensors.torch import load_file, save_file


class Weights:
    """A model directory: its manifest and its tensors in float32."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = tomllib.loads((folder / "model.toml").read_text())
        image = self.manifest["image"]
        self.image = (image["height"], image["width"])
        self.fusion = self.manifest.get("fusion_blocks", "midup")
        if "lora" in self.manifest["files"] or "text_embedding" not in self.manifest["files"]:
            sys.exit(f"bench-pytorch: {folder}: needed is a model with a text_embedding and without a LoRA")
        if self.manifest["networks"]["vae"].get("_class_name", "AutoencoderKL") != "AutoencoderKL":
            sys.exit(f"bench-pytorch: {folder}: needed is a model with an AutoencoderKL")

    def tensors(self, role):
        files = self.manifest["files"][role]
        found = {}
        for entry in files if isinstance(files, list) else [files]:
            found |= load_file(self.folder / entry["path"])
        return {name: tensor.float() for name, tensor in found.items()}

    def text(self):
        return self.tensors("text_embedding")["conditional"]

    def build(self, cls, role):
        """A network of the original's with this directory's weights, all of them."""
        networks = self.manifest["networks"]
        config = self.adapted(cls, role, networks.get(role, networks["unet"]))
        network = truncated(cls, config) if role == "appearance" else cls(**config)
        network.load_state_dict(self.tensors(role), strict=True)
        return network.eval()

    def adapted(self, cls, role, config):
        """The configuration that this class takes; it says 2D and 3D where ours takes either."""
        taken = inspect.signature(cls.__init__).parameters
        config = {name: value for name, value in config.items() if name in taken}
        levels = len(config["block_out_channels"])
        if role == "vae":
            return config | {
                "down_block_types": ["DownEncoderBlock2D"] * levels,
                "up_block_types": ["UpDecoderBlock2D"] * levels,
            }
        if role == "unet":
            # The options of its inference settings that ours do not name.
            own = {"unet_use_cross_frame_attention": False, "unet_use_temporal_attention": False}
            config |= own | {"motion_module_type": "Vanilla"}
        side = "3D" if role == "unet" else "2D"
        for name in ("down_block_types", "up_block_types"):
            if name in config:
                config[name] = [re.sub("[23]D$", side, kind) for kind in config[name]]
        return config


def truncated(cls, config):
    """The appearance encoder, cut off behind its last attention's first norm.

    The original does that in its constructor, by fixed indices: behind the third attention of the
    fourth level. With fewer levels it fails there, with everything built, and the cut is made here.
    """
    network = cls.__new__(cls)
    try:
        network.__init__(**config)
        return network
    except IndexError:
        if len(network.up_blocks) != len(config["block_out_channels"]):
            raise
    module = sys.modules[cls.__module__]
    last = max(i for i, block in enumerate(network.up_blocks) if hasattr(block, "attentions"))
    network.up_blocks = network.up_blocks[: last + 1]
    network.up_blocks[last].upsamplers = None
    attention = network.up_blocks[last].attentions[-1]
    block = attention.transformer_blocks[0]
    for name in ("to_q", "to_k", "to_v"):
        setattr(block.attn1, name, module._LoRACompatibleLinear())
    block.attn1.to_out = torch.nn.ModuleList([module.Identity(), module.Identity()])
    block.norm2, block.attn2, block.norm3, block.ff = module.Identity(), None, module.Identity(), module.Identity()
    attention.proj_out = module.Identity()
    return network


class Scheduler:
    """Latent consistency sampling, which the original has not."""

    def __init__(self, manifest):
        config, steps = manifest["scheduler"], manifest["defaults"]["steps"]
        count, original = config["num_train_timesteps"], config["original_inference_steps"]
        chosen = manifest["defaults"].get("timesteps")
        spaced = [(original - int(i * original / steps)) * (count // original) - 1 for i in range(steps)]
        self.timesteps = torch.tensor(chosen or spaced)
        start, end = config["beta_start"], config["beta_end"]
        if config["beta_schedule"] == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, count) ** 2
        else:
            betas = torch.linspace(start, end, count)
        self.alphas = (1 - betas).cumprod(0)
        if config.get("rescale_betas_zero_snr"):
            root = self.alphas.sqrt()
            self.alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        self.velocity = config["prediction_type"] == "v_prediction"
        self.scaling = config["timestep_scaling"]

    def step(self, answer, index, sample, noise):
        """The next latents; `noise[index + 1]` is added except at the end."""
        t = self.timesteps[index]
        alpha = self.alphas[t]
        signal, rest = alpha.sqrt(), (1 - alpha).sqrt()
        clean = signal * sample - rest * answer if self.velocity else (sample - rest * answer) / signal
        scaled = t * self.scaling
        total = scaled**2 + 0.25
        clean = clean * scaled / total.sqrt() + sample * 0.25 / total
        if index + 1 == len(self.timesteps):
            return clean
        alpha = self.alphas[self.timesteps[index + 1]]
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise[index + 1 : index + 2]


def motion_model(source, target, context):
    """A copy of the model directory `source` with random motion modules and the original's pooled norms."""
    from magicanimate.models.unet_controlnet import UNet3DConditionModel

    target.mkdir(parents=True)
    weights = Weights(source)
    config = weights.manifest["networks"]["unet"] | {"use_motion_module": True}
    network = UNet3DConditionModel(**weights.adapted(UNet3DConditionModel, "unet", config))
    _, unknown = network.load_state_dict(weights.tensors("unet"), strict=False)
    if unknown:
        sys.exit(f"bench-pytorch: {source}: the original's U-Net has no {unknown}")
    # They start without effect, which a comparison would not notice.
    for name, parameter in network.named_parameters():
        if "motion_modules" in name and "proj_out.weight" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    for entry in weights.manifest["files"].values():
        for file in entry if isinstance(entry, list) else [entry]:
            shutil.copy(source / file["path"], target / file["path"])
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, target / "unet.safetensors")
    data = (target / "unet.safetensors").read_bytes()
    entry = {"path": '"unet.safetensors"', "sha256": f'"{hashlib.sha256(data).hexdigest()}"', "size": len(data)}
    text = (source / "model.toml").read_text()
    unet = {"use_motion_module": "true", "norm_per_frame": "false"}
    for section, values in (("files.unet", entry), ("networks.unet", unet), ("defaults", {"context_frames": context})):
        text = replaced(text, section, values)
    text = re.sub('^name = ".*"', lambda name: name[0][:-1] + ' with random motion modules"', text, count=1, flags=re.M)
    (target / "model.toml").write_text(text)
    return target


def replaced(text, section, values):
    """The TOML `text` with values of one section replaced."""
    head, begin, rest = text.partition(f"[{section}]\n")
    body, end, tail = rest.partition("\n\n")
    for name, value in values.items():
        body, found = re.subn(f"^{name} = .*$", f"{name} = {value}", body, count=1, flags=re.M)
        if not found:
            sys.exit(f"bench-pytorch: model.toml: [{section}] has no {name}")
    return head + begin + body + end + tail
