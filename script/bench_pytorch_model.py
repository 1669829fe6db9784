"""A model directory's networks as the original's classes, for script/bench-pytorch and script/parity."""

import inspect
import re
import sys
import tomllib

import torch
from safetensors.torch import load_file


class Weights:
    """A model directory: its manifest and its tensors in float32."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = tomllib.loads((folder / "model.toml").read_text())
        image = self.manifest["image"]
        self.image = (image["height"], image["width"])
        self.fusion = self.manifest.get("fusion_blocks", "midup")
        if "text_embedding" not in self.manifest["files"]:
            sys.exit(f"{folder}: needed is a model with a text_embedding")
        if self.manifest["networks"]["vae"].get("_class_name", "AutoencoderKL") != "AutoencoderKL":
            sys.exit(f"{folder}: needed is a model with an AutoencoderKL")

    def tensors(self, role):
        files = self.manifest["files"][role]
        found = {}
        for entry in files if isinstance(files, list) else [files]:
            found |= load_file(self.folder / entry["path"])
        return {name: tensor.float() for name, tensor in found.items()}

    def merged(self):
        """The U-Net with the LoRA, if there is one: kohya's names, merged as diffusers does."""
        found = self.tensors("unet")
        if "lora" not in self.manifest["files"]:
            return found
        lora, scale = self.tensors("lora"), self.manifest["defaults"].get("lora_scale", 1.0)
        for key in [key for key in found if key.endswith(".weight")]:
            module = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            if f"{module}.alpha" not in lora:
                continue
            down, up, alpha = (lora.pop(f"{module}.{name}") for name in ("lora_down.weight", "lora_up.weight", "alpha"))
            update = (up.flatten(1) @ down.flatten(1)).reshape(found[key].shape)
            found[key] = found[key] + update * (scale * alpha / down.shape[0])
        if lora:
            sys.exit(f"{self.folder}: the LoRA has modules that the U-Net lacks: {next(iter(lora))}")
        return found

    def text(self):
        return self.tensors("text_embedding")["conditional"]

    def build(self, cls, role):
        """A network of the original's with this directory's weights, all of them."""
        networks = self.manifest["networks"]
        config = self.adapted(cls, role, networks.get(role, networks["unet"]))
        network = truncated(cls, config) if role == "appearance" else cls(**config)
        if role == "vae":
            network.decoder = self.decoder(network, networks["vae"])
        network.load_state_dict(self.merged() if role == "unet" else self.tensors(role), strict=True)
        return network.eval()

    def decoder(self, network, config):
        """diffusers' decoder in the sizes of the directory, which may be others than the encoder's."""
        widths = config.get("up_block_out_channels", config["block_out_channels"])
        return type(network.decoder)(
            in_channels=network.config.latent_channels,
            out_channels=network.config.out_channels,
            up_block_types=network.config.up_block_types,
            block_out_channels=widths,
            layers_per_block=config.get("layers_per_up_block", network.config.layers_per_block),
            norm_num_groups=network.config.norm_num_groups,
            act_fn=network.config.act_fn,
        )

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
            if kwargs := dict(config.get("motion_module_kwargs", {})):
                motion_groups(kwargs.pop("norm_num_groups", 32))
                config["motion_module_kwargs"] = kwargs
        side = "3D" if role == "unet" else "2D"
        for name in ("down_block_types", "up_block_types"):
            if name in config:
                config[name] = [re.sub("[23]D$", side, kind) for kind in config[name]]
        return config


def motion_groups(count):
    """From now on motion modules have norms of so many groups; their constructor leaves it at 32."""
    from magicanimate.models.motion_module import TemporalTransformer3DModel as cls

    published = getattr(cls.__init__, "published", cls.__init__)

    def init(self, *args, **kwargs):
        published(self, *args, **{"norm_num_groups": count, **kwargs})

    init.published = published
    cls.__init__ = init


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
