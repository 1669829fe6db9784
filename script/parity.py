"""Compares keyframed's networks with MagicAnimate's own, on the same weight files: see script/parity."""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

warnings.filterwarnings("ignore")

import torch
from diffusers.models import AutoencoderKL
from einops import rearrange
from safetensors.torch import load_file

from bench_pytorch_model import Weights


class Original:
    """The original's networks, reading the reference with and without guidance."""

    def __init__(self, weights, guided):
        from magicanimate.models.appearance_encoder import AppearanceEncoderModel
        from magicanimate.models.controlnet import ControlNetModel
        from magicanimate.models.mutual_self_attention import ReferenceAttentionControl
        from magicanimate.models.unet_controlnet import UNet3DConditionModel

        self.guided = guided
        self.unet = weights.build(UNet3DConditionModel, "unet")
        self.controlnet = weights.build(ControlNetModel, "controlnet")
        self.appearance = weights.build(AppearanceEncoderModel, "appearance")
        control = {"do_classifier_free_guidance": guided, "fusion_blocks": weights.fusion}
        self.writer = ReferenceAttentionControl(self.appearance, mode="write", **control)
        self.reader = ReferenceAttentionControl(self.unet, mode="read", **control)

    def bank(self, reference, t, text):
        """What the appearance encoder leaves for the U-Net, by block; the U-Net's answers read it from there."""
        self.writer.clear()
        self.appearance(reference.repeat(len(text), 1, 1, 1), t, encoder_hidden_states=text, return_dict=False)
        modules = self.appearance.named_modules()
        return {name: module.bank[0].clone() for name, module in modules if getattr(module, "bank", None)}

    def residuals(self, latents, t, poses, text):
        frames = rearrange(latents, "b c f h w -> (b f) c h w")
        text = text[-1:].repeat_interleave(len(frames), 0)
        return self.controlnet(frames, t, encoder_hidden_states=text, controlnet_cond=poses, return_dict=False)

    def answer(self, latents, t, residuals, text):
        halves = len(text)
        video = lambda x: rearrange(x, "(b f) c h w -> b c f h w", f=latents.shape[2]).repeat(halves, 1, 1, 1, 1)
        # The original hands the bank over in half precision, whatever the networks run in.
        self.reader.update(self.writer, dtype=torch.float32)
        answer = self.unet(
            latents.repeat(halves, 1, 1, 1, 1),
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=[video(x) for x in residuals[0]],
            mid_block_additional_residual=video(residuals[1]),
            return_dict=False,
        )[0]
        self.reader.clear()
        return answer


class Differences:
    """The largest per network: as it is, and over max(1, largest value)."""

    def __init__(self):
        self.largest = defaultdict(lambda: (0.0, 0.0, 0))

    def add(self, name, ours, theirs):
        if ours.shape != theirs.shape:
            sys.exit(f"parity: {name}: keyframed gives {tuple(ours.shape)}, the original {tuple(theirs.shape)}")
        difference = (ours - theirs).abs().max().item()
        scaled = difference / max(1.0, theirs.abs().max().item())
        # Not `max`, which may lose what is no number.
        if not scaled < float("inf"):
            sys.exit(f"parity: {name}: the difference is no finite number")
        old = self.largest[name]
        self.largest[name] = (max(old[0], difference), max(old[1], scaled), old[2] + theirs.numel())

    def table(self):
        lines = [f"{'':24}{'values':>10}{'largest difference':>20}{'scaled':>10}"]
        for name, (difference, scaled, count) in self.largest.items():
            lines.append(f"{name:24}{count:10}{difference:20.1e}{scaled:10.1e}")
        return "\n".join(lines)


def compare(weights, ours):
    found = Differences()
    vae = weights.build(AutoencoderKL, "vae")
    scale = vae.config.scaling_factor
    reference = ours["reference"]
    found.add("VAE encoder", reference, vae.encode(ours["picture"]).latent_dist.mean * scale)
    found.add("VAE decoder", ours["decoded"], vae.decode(reference / scale).sample)
    # Where norms are per frame, the original sees one frame at a time: it pools them over a window.
    alone = weights.manifest["networks"]["unet"].get("norm_per_frame", False)
    frames = range(len(ours["poses"]))
    windows = [slice(i, i + 1) for i in frames] if alone else [slice(None)]
    text = ours["text"]
    for guided in (False, True):
        original = Original(weights, guided)
        own_text = text if guided else text[1:]
        if not guided:
            embed = original.controlnet.controlnet_cond_embedding
            found.add("pose embedding", ours["embedded"], embed(ours["poses"]))
        for step in [int(t) for t in ours["timesteps"]]:
            t = torch.tensor(step)
            bank = original.bank(reference, t, own_text)
            mine = {name.removeprefix(f"{step}.bank."): x for name, x in ours.items() if f"{step}.bank." in name}
            if mine.keys() != bank.keys():
                sys.exit(f"parity: the banks are of other blocks: {sorted(mine.keys() ^ bank.keys())}")
            if not guided:
                for name, features in bank.items():
                    found.add("appearance encoder", mine[name], features)
            answers = []
            for window in windows:
                latents = ours["latents"][:, :, window]
                down, mid = original.residuals(latents, t, ours["poses"][window], own_text)
                if not guided:
                    for index, x in enumerate(down):
                        found.add("ControlNet", ours[f"{step}.down.{index}"][window], x)
                    found.add("ControlNet", ours[f"{step}.mid"][window], mid)
                answers.append(original.answer(latents, t, (down, mid), own_text))
            name, key = ("U-Net, both halves", "guided") if guided else ("U-Net", "answer")
            found.add(name, ours[f"{step}.{key}"], torch.cat(answers, 2))
    return found, alone


def arguments():
    parser = argparse.ArgumentParser(prog="parity", add_help=False, usage=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--magic-animate", type=Path, required=True)
    parser.add_argument("--passes", required=True)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1e-4)
    options = parser.parse_args()
    if not 1 <= options.frames <= 24 or not options.limit > 0:
        parser.error("--frames goes from 1 to 24, --limit is above 0")
    return options


@torch.no_grad()
def main():
    options = arguments()
    sys.path.insert(0, str(options.magic_animate))
    weights = Weights(options.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "passes.safetensors"
        command = [options.passes, str(options.model), str(options.frames), str(file)]
        status = subprocess.run(command).returncode
        if status:
            sys.exit(f"parity: {' '.join(command)} failed with status {status}")
        ours = load_file(file)
    found, alone = compare(weights, ours)
    how = "one by one in the original" if alone else "together"
    print(f"{weights.manifest['name']}: {options.frames} frames, {how}; float32, torch {torch.__version__}", end="\n\n")
    print(found.table())
    above = [name for name, (_, scaled, _) in found.largest.items() if scaled > options.limit]
    if above:
        sys.exit(f"parity: above {options.limit:.0e}: {', '.join(above)}")


if __name__ == "__main__":
    main()
