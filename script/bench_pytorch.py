"""Times MagicAnimate's own code beside keyframed, on the same weights: see script/bench-pytorch."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch
from diffusers.models import AutoencoderKL
from einops import rearrange
from safetensors.torch import load_file

from bench_pytorch_model import Scheduler, Weights

# The scaled error that float32 allows over a whole key frame.
TOLERANCE = 1e-4
# Our names of the networks, as `keyframed bench` has them, and what a key frame is called here.
NETWORKS = ["appearance encoder", "pose embedding", "ControlNet", "U-Net", "VAE decoder", "VAE encoder"]
KEY_FRAMES = ["key frame", "key frame, bank kept"]
NOTES = {"ControlNet": " (1)", "key frame, bank kept": " (2)"}


class Original:
    """The original's networks with a model directory's weights, run as its pipeline runs them, without guidance."""

    def __init__(self, weights, frames):
        from magicanimate.models.appearance_encoder import AppearanceEncoderModel
        from magicanimate.models.controlnet import ControlNetModel
        from magicanimate.models.mutual_self_attention import ReferenceAttentionControl
        from magicanimate.models.unet_controlnet import UNet3DConditionModel

        self.frames, self.text = frames, weights.text()
        self.vae = weights.build(AutoencoderKL, "vae")
        self.unet = weights.build(UNet3DConditionModel, "unet")
        self.controlnet = weights.build(ControlNetModel, "controlnet")
        self.appearance = weights.build(AppearanceEncoderModel, "appearance")
        self.scheduler = Scheduler(weights.manifest)
        self.scale = self.vae.config.scaling_factor
        control = {"do_classifier_free_guidance": False, "fusion_blocks": weights.fusion}
        self.writer = ReferenceAttentionControl(self.appearance, mode="write", **control)
        self.reader = ReferenceAttentionControl(self.unet, mode="read", **control)
        self.writers = [module for module in self.appearance.modules() if hasattr(module, "bank")]

    def encode(self, picture):
        return self.vae.encode(picture).latent_dist.mean * self.scale

    def decode(self, latents):
        return self.vae.decode(latents / self.scale).sample

    def write_bank(self, reference, t):
        self.appearance(reference, t, encoder_hidden_states=self.text, return_dict=False)

    def take_bank(self, reference, t):
        """The appearance encoder's features at `t`, to be put back with `put_bank`."""
        self.write_bank(reference, t)
        kept = [list(module.bank) for module in self.writers]
        self.writer.clear()
        return kept

    def put_bank(self, kept):
        for module, bank in zip(self.writers, kept):
            module.bank = list(bank)

    def residuals(self, latents, t, poses):
        down, mid = self.controlnet(
            rearrange(latents, "b c f h w -> (b f) c h w"),
            t,
            encoder_hidden_states=self.text.repeat_interleave(self.frames, 0),
            controlnet_cond=poses,
            return_dict=False,
        )
        video = lambda x: rearrange(x, "(b f) c h w -> b c f h w", f=self.frames)
        return [video(x) for x in down], video(mid)

    def predict(self, latents, t, residuals):
        # The original hands the bank over in half precision, whatever the networks run in.
        self.reader.update(self.writer, dtype=torch.float32)
        answer = self.unet(
            latents,
            t,
            encoder_hidden_states=self.text,
            down_block_additional_residuals=residuals[0],
            mid_block_additional_residual=residuals[1],
            return_dict=False,
        )[0]
        self.reader.clear()
        return answer

    def key_frame(self, reference, poses, noise, banks=None):
        """The picture of the window's last frame, and the U-Net's answers."""
        latents, answers = noise[0:1], []
        for index, t in enumerate(self.scheduler.timesteps):
            if banks is None:
                self.write_bank(reference, t)
            else:
                self.put_bank(banks[index])
            answers.append(self.predict(latents, t, self.residuals(latents, t, poses)))
            self.writer.clear()
            latents = self.scheduler.step(answers[-1], index, latents, noise)
        return self.decode(latents[:, :, -1]), answers


def measure(work, seconds):
    """Median milliseconds of at least three runs, after two or as many as there is time for."""
    started = time.perf_counter()
    work()
    if time.perf_counter() - started < seconds:
        work()
    times, started = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - started < seconds and len(times) < 200):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def time_original(original, image, seconds):
    """Milliseconds of each network and of a key frame."""
    (height, width), frames, t = image, original.frames, torch.tensor(499)
    poses, picture = torch.rand(frames, 3, height, width), torch.rand(1, 3, height, width) * 2 - 1
    reference = original.encode(picture)
    noise = torch.randn(len(original.scheduler.timesteps), reference.shape[1], frames, *reference.shape[2:])
    latents, one = noise[0:1], noise[0:1, :, -1]
    banks = [original.take_bank(reference, t) for t in original.scheduler.timesteps]
    residuals = original.residuals(latents, t, poses)

    def appearance():
        original.write_bank(reference, t)
        original.writer.clear()

    def unet():
        original.put_bank(banks[0])
        original.predict(latents, t, residuals)

    work = {
        "appearance encoder": appearance,
        "pose embedding": lambda: original.controlnet.controlnet_cond_embedding(poses),
        "ControlNet": lambda: original.residuals(latents, t, poses),
        "U-Net": unet,
        "VAE decoder": lambda: original.decode(one),
        "VAE encoder": lambda: original.encode(picture),
        "key frame": lambda: original.key_frame(reference, poses, noise),
        "key frame, bank kept": lambda: original.key_frame(reference, poses, noise, banks),
    }
    return {name: measure(piece, seconds) for name, piece in work.items()}


def run(command):
    """What a program prints; its complaints go where ours go."""
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"bench-pytorch: {' '.join(command)} failed with status {done.returncode}")
    return done.stdout


def time_ours(program, model, frames, threads):
    """The same from `keyframed bench`."""
    command = [program, "bench", "--json", "--seconds", "0", "--device", "cpu", "--dtype", "f32"]
    command += ["--threads", str(threads), "--model", str(model)]
    command += ["--context-frames", str(frames - 1), "--context-mode", "cache"]
    report = json.loads(run(command))
    if report["threads"] != threads or report["dtype"] != "f32":
        ran = f"{report['dtype']} on {report['threads']} threads"
        sys.exit(f"bench-pytorch: keyframed ran in {ran}: nothing to compare with")
    networks = {cost["name"]: cost["median_ms"] for cost in report["networks"]}
    # keyframed keeps the bank, so there is one kind of key frame.
    key_frames = dict.fromkeys(KEY_FRAMES, report["key_frame"]["median_ms"])
    return {name: networks[name] for name in NETWORKS} | key_frames


def error(ours, theirs):
    scale = max(1.0, theirs.abs().max().item())
    return (ours - theirs).abs().max().item() / scale


def compare(original, dumper, model, folder):
    """Scaled errors between keyframed's tensors and the original's for the same key frame."""
    file = folder / "key_frame.safetensors"
    run([dumper, str(model), str(original.frames), str(file)])
    ours = load_file(file)
    timesteps = [int(t) for t in ours["timesteps"]]
    if timesteps != original.scheduler.timesteps.tolist():
        wanted = original.scheduler.timesteps.tolist()
        sys.exit(f"bench-pytorch: keyframed runs the timesteps {timesteps}, the original's are {wanted}")
    reference = original.encode(ours["picture"])
    made, answers = original.key_frame(reference, ours["poses"], ours["noise"])
    errors = {"reference latents": error(ours["reference"], reference), "picture": error(ours["made"], made)}
    for index, answer in enumerate(answers):
        errors[f"U-Net, step {index + 1}"] = error(ours[f"answer.{index}"], answer)
    wrong = [f"{error:.1e} in {name}" for name, error in errors.items() if not error <= TOLERANCE]
    if wrong:
        sys.exit(f"bench-pytorch: the two compute different things: scaled error {', '.join(wrong)}")
    return errors


def run_model(model, frames, options, folder):
    """Everything about one model directory."""
    weights = Weights(model)
    original = Original(weights, frames)
    found = {"model": weights.manifest["name"], "frames": frames, "steps": len(original.scheduler.timesteps)}
    if options.dump:
        found["scaled_errors"] = compare(original, options.dump, model, folder)
    rounds = []
    for _ in range(options.rounds):
        theirs = time_original(original, weights.image, options.seconds)
        ours = time_ours(options.keyframed, model, frames, options.threads)
        rounds.append({"original_ms": theirs, "keyframed_ms": ours})
    return found | {"rounds": rounds}


def rows(result):
    """Per piece of work: the original's milliseconds, ours, and the ratio, each the mean of the rounds."""
    mean = lambda who, name: statistics.fmean(part[who][name] for part in result["rounds"])
    times = {name: (mean("original_ms", name), mean("keyframed_ms", name)) for name in NETWORKS + KEY_FRAMES}
    return {name: (theirs, ours, theirs / ours) for name, (theirs, ours) in times.items()}


def table(results, threads):
    lines = []
    for result in results:
        window = f"{result['frames']} frames in the window" if result["frames"] > 1 else "one frame"
        lines += [f"{result['model']}: {window}, {result['steps']} steps, float32, {threads} threads", ""]
        lines += [f"{'':26}{'original ms':>12}{'keyframed ms':>14}{'ratio':>8}"]
        for name, (theirs, ours, ratio) in rows(result).items():
            lines.append(f"{name + NOTES.get(name, ''):26}{theirs:12.1f}{ours:14.1f}{ratio:7.2f}x")
        if result["frames"] > 1:
            lines.append("keyframed's networks are timed on one frame without context; its key frame has it, cached")
        if "scaled_errors" in result:
            worst = max(result["scaled_errors"].values())
            lines.append(f"same key frame from both: scaled error at most {worst:.1e}")
        lines.append("")
    lines.append("(1) the original embeds the pose in it, at every step; keyframed once per key frame")
    lines.append("(2) the original without its appearance encoder, which it runs at every step")
    return "\n".join(lines)


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def arguments():
    parser = argparse.ArgumentParser(prog="bench-pytorch", add_help=False, usage=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--magic-animate", type=Path, required=True)
    parser.add_argument("--keyframed", required=True)
    parser.add_argument("--dump", default="")
    parser.add_argument("--random-motion", default="")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--motion", type=int, default=0)
    parser.add_argument("--only-motion", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.motion and not options.random_motion:
        parser.error("--motion needs --random-motion, the program that makes such a model")
    if options.only_motion and not options.motion or options.motion == 1 or options.motion > 24:
        parser.error("--motion takes 2 to 24 key frames, and --only-motion needs it")
    cores = len(os.sched_getaffinity(0))
    if options.rounds < 1 or not 1 <= options.threads <= cores:
        parser.error(f"--rounds starts at 1, --threads goes from 1 to {cores}")
    return options


@torch.no_grad()
def main():
    options = arguments()
    sys.path.insert(0, str(options.magic_animate))
    # Both run on the same cores, as many as there are threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        folder, results = Path(folder), []
        if not options.only_motion:
            results.append(run_model(options.model, 1, options, folder))
        if options.motion:
            model = folder / "motion"
            run([options.random_motion, str(options.model), str(options.motion - 1), str(model)])
            results.append(run_model(model, options.motion, options, folder))
    for result in results:
        result["ratio"] = {name: ratio for name, (_, _, ratio) in rows(result).items()}
    report = {"processor": processor(), "threads": options.threads, "torch": torch.__version__, "results": results}
    print(table(results, options.threads))
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
