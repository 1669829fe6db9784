"""Fills corpus/<target> with what the targets begin from: files of this repository, and a few written here.

Files in corpus-seed/ are copied: pictures in formats that Python cannot write, and inputs that once crashed.
"""

import json
import pathlib
import re
import shutil
import struct
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent


def put(target, name, content):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def frame(body, flags=0):
    size = bytes([flags, len(body)]) if len(body) < 256 else bytes([flags | 2]) + struct.pack(">Q", len(body))
    return size + body


def zmtp():
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\0NULL" + bytes(48)
    ready = frame(b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER", 4)
    call = b'{"jsonrpc":"2.0","id":1,"method":"status"}'
    put("zmtp", "greeting", greeting)
    put("zmtp", "request", b"\x07" + ready + frame(b"", 1) + frame(call))
    put("zmtp", "long", b"\x40" + frame(b"x" * 300, 1) + frame(b"\x04PING\0\x0ahello", 4) + frame(call))
    put("zmtp", "parts", b"\x03" + frame(b"p", 1) * 18 + frame(b"end") + frame(b"\x04PING\0\x0ahello", 4))
    put("zmtp", "huge", b"\x30\x02" + struct.pack(">Q", 1 << 20) + b"x" * 64)


def jsonrpc():
    calls = [
        ("status", None), ("params.set", {"lambda": 0.01}), ("params.set", {"steps": 4.0, "seed": 7, "max_quality": "film"}),
        ("reference.set", {"name": "ada"}), ("reference.set", {"path": "a/b.png"}), ("pipeline.switch", {"name": "main"}),
        ("rpc.discover", {}), ("snapshot", []),
    ]
    made = []
    for number, (method, params) in enumerate(calls):
        call = {"jsonrpc": "2.0", "id": number, "method": method}
        if params is not None:
            call["params"] = params
        made.append(call)
        put("jsonrpc", f"call-{number}", json.dumps(call))
    put("jsonrpc", "batch", json.dumps(made))
    put("jsonrpc", "reply", json.dumps({"jsonrpc": "2.0", "id": "x", "result": {"a": [1, None]}}))
    error = {"code": -32602, "message": "no", "data": {"param": "steps"}}
    put("jsonrpc", "error", json.dumps({"jsonrpc": "2.0", "id": None, "error": error}))


def config():
    files = [ROOT / "src/config/default.toml", *ROOT.glob("pipelines/*.toml"), *ROOT.glob("systemd/**/*.toml")]
    for file in files:
        put("config", file.name, file.read_bytes())
    # The commented defaults, in force.
    text = (ROOT / "src/config/default.toml").read_text()
    put("config", "defaults-in-force", re.sub(r"(?m)^# ?(\[|[a-z_]+ =)", r"\1", text))


def models():
    manifest = (ROOT / "models/mini/model.toml").read_text()
    put("manifest", "mini", manifest)
    put("networks", "mini", manifest[manifest.index("[networks.vae]") : manifest.index("[files.vae]")])
    put("networks", "published", "[networks]\nvae={}\nunet={use_motion_module=true}\ncontrolnet={}\nfilm={}\ntext_encoder={}")
    levels = "down_block_types=['CrossAttnDownBlock2D','DownBlock2D']\nup_block_types=['UpBlock2D','CrossAttnUpBlock2D']\n"
    levels += "block_out_channels=[8,16]\nattention_head_dim=[2,4]\nnorm_num_groups=4\nlayers_per_block=1\n"
    tiny = "[networks.vae]\n_class_name='AutoencoderTiny'\nencoder_block_out_channels=[8]\nnum_encoder_blocks=[1]\n"
    motion = "[networks.unet.motion_module_kwargs]\nnorm_num_groups=4\nnum_attention_heads=2\n"
    motion += "temporal_position_encoding_max_len=24\nattention_block_types=['Temporal_Self']\nnum_transformer_block=1\n"
    text = "[networks.text_encoder]\nhidden_size=8\nnum_attention_heads=2\nnum_hidden_layers=1\nintermediate_size=8\n"
    controlnet = "[networks.controlnet]\nconditioning_embedding_out_channels=[4,8]\n" + levels
    put("networks", "small", tiny + "[networks.unet]\nuse_motion_module=true\n" + levels + motion + controlnet + text)
    bytes_ = (ROOT / "models/mini/text_embedding.safetensors").read_bytes()
    put("safetensors", "whole", bytes_)
    put("safetensors", "header", bytes_[8 : 8 + struct.unpack("<Q", bytes_[:8])[0]])
    header = {"__metadata__": {"format": "pt"}}
    for at, kind in enumerate(["F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"]):
        width = {"8": 1, "L": 1, "6": 2, "2": 4, "4": 8}[kind[-1]]
        header[f"t{at}"] = {"dtype": kind, "shape": [1, 6 // width if at == 0 else 0], "data_offsets": [0, 0]}
    header["rest"] = {"dtype": "U8", "shape": [8, 8], "data_offsets": [0, 64]}
    header["t0"]["shape"] = [0]
    put("safetensors", "kinds", json.dumps(header))
    for file in (ROOT / "models/tests/torch").glob("*.pt"):
        put("pickle", file.name, file.read_bytes())
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                put("pickle", f"{file.stem}.pkl", archive.read(name))


def lora():
    """Entries as `arbitrary` reads them from bytes; kohya's, diffusers' and peft's names, with ranks that fit."""
    pairs = {"kohya": (1, 1, (1, 2, 3)), "diffusers": (0, 2, (10, 11)), "peft": (3, 0, (4, 5))}
    for name, (prefix, module, endings) in pairs.items():
        made = b""
        for ending, shape in zip(endings, ((2, 8, 0, 2), (4, 2, 0, 2), (0, 0, 0, 0))):
            made += bytes([1, prefix, module, ending, *shape])
        put("lora", name, made + bytes(64))
        put("lora", f"{name}-reversed", (made + bytes(32))[::-1])


def densepose():
    colours = bytes([68, 1, 84, 71, 16, 99, 59, 81, 139, 253, 231, 37, 226, 228, 24])
    put("densepose", "palette", colours * 20 + bytes([40, 0, 30, 0, 0, 8, 8, 0]))
    put("densepose", "noise", bytes(range(256)) + bytes([17, 0, 13, 0, 3, 9, 4, 1]))


def main():
    for make in (zmtp, jsonrpc, config, models, lora, densepose):
        make()
    for folder in (HERE / "corpus-seed").glob("*"):
        shutil.copytree(folder, HERE / "corpus" / folder.name, dirs_exist_ok=True)


main()
