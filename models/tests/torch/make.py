"""Writes the PyTorch files that `torch_files.rs` reads (PyTorch 2; sizes of a few kB)."""

import collections
import os
import pathlib
import pickle
import zipfile

import torch

here = pathlib.Path(__file__).parent


def numbers(*size, dtype=torch.float32):
    count = torch.Size(size).numel()
    return (torch.arange(count, dtype=torch.float32) / 8).reshape(size).to(dtype)


shared = numbers(6, 4)
state = collections.OrderedDict(
    [
        ("conv.weight", torch.nn.Parameter(numbers(2, 3, 1, 2))),
        ("half", numbers(5, dtype=torch.float16)),
        ("brain", numbers(5, dtype=torch.bfloat16)),
        ("count", torch.tensor(7)),
        ("turned", shared.t()),
        ("part", shared[2:4, 1:3]),
        ("none", torch.zeros(0, 3)),
    ]
)
torch.save(state, here / "state.pt")
torch.save(state, here / "legacy.pt", _use_new_zipfile_serialization=False)
optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "lr": 1e-4, "betas": (0.9, 0.999), "amsgrad": False}
torch.save({"state_dict": state, "epoch": 3, "optimizer": optimizer, "name": "trial"}, here / "nested.pt")


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 1)
        self.conv.weight.data = numbers(3, 2, 1, 1).half()
        self.conv.bias.data = numbers(3).half()
        self.steps = [1, 2]

    def forward(self, x):
        return self.conv(x)


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.ModuleList([Inner()])
        self.register_buffer("grid", numbers(2, 2))

    def forward(self, x):
        return self.inner[0](x)


torch.jit.script(Outer()).save(here / "script.pt")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/keyframed-was-here",))


torch.save({"weight": numbers(2), "extra": Evil()}, here / "evil.pt")

with zipfile.ZipFile(here / "state.pt") as source, zipfile.ZipFile(here / "packed.pt", "w", zipfile.ZIP_DEFLATED) as to:
    for name in source.namelist():
        to.writestr(name, source.read(name))
