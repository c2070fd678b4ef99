"""Runs the pieces of docs/diffusers.md: `run_docs.py DOCS FOLDER`. FOLDER/cases.json names the heading, the
folder to work in and the shape of the noise of each; the folder holds `noise.safetensors` and gets
`images.safetensors`."""

import json
import os
import re
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file, save_file

diffusers.utils.logging.disable_progress_bar()
pieces = dict(re.findall(r"^## (.+?)\n(?:(?!^## ).)*?^```python\n(.*?)^```", Path(sys.argv[1]).read_text(), re.M | re.S))
root = Path(sys.argv[2]).resolve()
for case in json.loads((root / "cases.json").read_text()):
    os.chdir(root / case["folder"])
    noise = load_file("noise.safetensors")["latents"]

    def given(*shape, **options):
        shape = tuple(shape[0]) if len(shape) == 1 else shape
        if len(shape) != noise.dim():  # A network being built, before its weights are loaded.
            return drawn(*shape, **options)
        assert shape == tuple(noise.shape), (case, shape, noise.shape)
        return noise.clone()

    # Everything that starts from noise, in the pieces and in diffusers, calls this.
    drawn, torch.randn = torch.randn, given
    names = {}
    exec(compile(pieces.pop(case["heading"]), case["heading"], "exec"), names)
    torch.randn = drawn
    save_file({"images": names["images"].float().contiguous()}, "images.safetensors")
assert not pieces, f"not run: {list(pieces)}"
