"""Writes fixture.json beside this file: a small vocabulary, and what transformers' CLIP tokenizers make of prompts.

Run with transformers and tokenizers installed (made with transformers 4.35.2):

    python3 models/tests/tokenizer/make_fixture.py

The vocabulary is trained here on a few sentences, in CLIP's form; nothing published is in it.
"""

import json
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, CLIPTokenizerFast

LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"

CORPUS = """
a photograph of a person dancing in the rain, walking, waving and spinning; best quality, highly detailed.
the dancer's dress isn't red, they're dancing and we've seen what she'd do: I'm sure he'll dance, don't you?
a cartoon figure with blue hair, 35mm film, 8k, studio lighting, soft shadows, on a plain background.
portrait of an old man (masterpiece:1.2), sharp focus -- trending, by nobody; 1dancer, alone, facing the viewer!
eine Tänzerin im Café, déjà vu, naïve façade, señor, 日本語 のテキスト, русский текст, ελληνικά
""" * 4

PROMPTS = [
    "",
    " ",
    "a",
    "a photograph of a dancer",
    "A Photograph Of A DANCER",
    "  a   photograph\tof\n a\r\ndancer  ",
    "the dancer's dress isn't red",
    "they're here, we've seen what she'd do, I'm sure he'll dance",
    "DON'T STOP, IT'S THE DANCER'S TURN",
    "don\u2019t stop, it\u2019s typographic",
    "'s 't 're 've 'm 'll 'd 'x",
    "rock'n'roll o'clock 'quoted' ''twice''",
    "best quality, highly detailed, 8k, 35mm film",
    "(masterpiece:1.2), sharp focus -- trending!!! ???",
    "a,b;c.d:e!f?g",
    "...---...",
    "#hashtag @name $5.00 50% a&b a+b=c [x]{y}<z>|~`^_\\/",
    "2024-01-31 1234567890 3.14159",
    "1dancer, alone, v2.0",
    "under_score kebab-case camelCase",
    "http://example.org/a?b=c&d=e",
    "caf\u00e9 d\u00e9j\u00e0 vu na\u00efve fa\u00e7ade",
    "cafe\u0301 de\u0301ja\u0300 vu decomposed",
    "T\u00c4NZERIN STRASSE stra\u00dfe",
    "\u0130stanbul \u0131\u015f\u0131k",
    "\u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442 \u0422\u0410\u041d\u0415\u0426",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8 \u4e2d\u6587",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f483",
    "a dancer \U0001f483\U0001f57a in the rain \u2614\ufe0f",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family, \U0001f1e9\U0001f1ea flag, \U0001f44d\U0001f3fd",
    "\ufb01lm \u2460\u2461 \u00bd \u00b2 \u2167 \uff21\uff42\uff43 fullwidth",
    "non\u00a0breaking\u3000ideographic\u2009thin\u200bzero\ufeffwidth",
    "soft\u00adhyphen control\u0001char\u007f",
    "em\u2014dash \u201cquotes\u201d \u2026ellipsis \u00abguillemets\u00bb",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 digits",
    "a <|endoftext|> b",
    "<|startoftext|>a dancer",
    "<|ENDOFTEXT|> upper",
    "</w> a</w>b",
    "zzzzqqqqxxxxjjjj",
    "x" * 300,
    "a dancer, " * 40,
    " ".join(["dancing"] * 75),
    " ".join(["dancing"] * 76),
    "the rain \u2614 " * 30,
    "\U0001f483" * 60,
    "caf\u00e9 " * 50,
]


def train():
    """A byte-level vocabulary in CLIP's form."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=900, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS.strip().splitlines(), trainer)
    made = json.loads(tokenizer.to_str())["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in made["merges"]]
    # As CLIP orders it: all bytes, all bytes at the end of a word, the merges' results, start and end.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys(alphabet + [piece + "</w>" for piece in alphabet] + ["".join(pair) for pair in merges])
    tokens = list(pieces) + [START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def main():
    vocabulary, merges = train()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        lines = ["#version: 0.2"] + [" ".join(pair) for pair in merges]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
        files = [str(folder / "vocab.json"), str(folder / "merges.txt")]
        options = {"pad_token": END, "model_max_length": LENGTH}
        fast, slow = (kind(*files, **options) for kind in (CLIPTokenizerFast, CLIPTokenizer))
        settings = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
        cases = []
        for prompt in PROMPTS:
            ids = fast(prompt, **settings)["input_ids"]
            whole = fast(prompt)["input_ids"]
            case = {"prompt": prompt, "ids": ids, "tokens": len(whole)}
            if slow(prompt, **settings)["input_ids"] != ids:
                case["slow_differs"] = True
            cases.append(case)
    made = {"vocabulary": vocabulary, "merges": lines, "cases": cases}
    text = json.dumps(made, separators=(",", ":"))
    text = text.replace('{"prompt"', '\n{"prompt"').replace(',"merges"', ',\n"merges"').replace(',"cases"', ',\n"cases"')
    Path(__file__).with_name("fixture.json").write_text(text + "\n")
    differing = [case["prompt"] for case in cases if "slow_differs" in case]
    print(f"{len(vocabulary)} tokens, {len(cases)} prompts; the slow tokenizer differs in {differing!r}")


if __name__ == "__main__":
    main()
