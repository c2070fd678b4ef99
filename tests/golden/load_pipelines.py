"""Loads the folders that Rust wrote into DIR, makes images of make_pipelines.py with them, and prints for
each mode the largest difference from the fixture's; and for each scheduler the number of values that are not
the fixture's.

    python load_pipelines.py DIR
"""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file

from common import FIXTURES, signal

torch.set_grad_enabled(False)
diffusers.utils.logging.set_verbosity_error()
here = Path(sys.argv[1])
fixture = json.loads((FIXTURES / "pipelines.json").read_text())
expected = load_file(FIXTURES / "pipelines.safetensors")


def show(name, images):
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    print(name, (images - expected[name]).abs().max().item())


def latents(name):
    return signal(name, tuple(next(c["latents"] for c in fixture["cases"] if c["name"] == name))) * 1.7


request = dict(
    prompt=[fixture["prompt"]] * 2,
    negative_prompt=[fixture["negative_prompt"]] * 2,
    num_inference_steps=fixture["steps"],
    output_type="np",
)

pipeline = DDPMPipeline.from_pretrained(here / "ddpm", local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
# It takes no latents: its noise is them.
sys.modules[DDPMPipeline.__module__].randn_tensor = lambda *_, **__: latents("unconditional/ddim")
images = pipeline(batch_size=2, num_inference_steps=fixture["steps"], output_type="np").images
show("unconditional/ddim", images)

pipeline = StableDiffusionPipeline.from_pretrained(here / "sd", local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
show("text/unipc", pipeline(latents=latents("text/unipc"), **request).images)

pipeline = DDPMPipeline.from_pretrained(here / "flow", local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
sys.modules[DDPMPipeline.__module__].randn_tensor = lambda *_, **__: latents("unconditional/flow")
images = pipeline(batch_size=2, num_inference_steps=fixture["steps"], output_type="np").images
show("unconditional/flow", images)

pipeline = StableDiffusionPipeline.from_pretrained(here / "own", local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
show("text/own", pipeline(latents=latents("text/own"), **request).images)

pipeline = StableDiffusionPipeline.from_pretrained(here / "text-flow", local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
# As in make_pipelines.py.
pipeline.scheduler.init_noise_sigma = 1.0
steps = next(c["steps"] for c in fixture["cases"] if c["name"] == "text/flow")
even = request | dict(num_inference_steps=steps, sigmas=np.linspace(1.0, 1 / steps, steps))
show("text/flow", pipeline(latents=latents("text/flow"), **even).images)

controlnet = ControlNetModel.from_pretrained(here / "controlnet", local_files_only=True)
pipeline = StableDiffusionControlNetPipeline.from_pretrained(
    here / "sd", controlnet=controlnet, local_files_only=True
)
pipeline.set_progress_bar_config(disable=True)
pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
control = (signal("control", (1, 3, 16, 16)) + 1) / 2
images = pipeline(
    latents=latents("control/unipc"), image=control, controlnet_conditioning_scale=0.8, **request
).images
show("control/unipc", images)

schedulers = json.loads((FIXTURES / "euler_schedulers.json").read_text())["defaults"]
for name, values in schedulers.items():
    made = getattr(diffusers, values["_class_name"]).from_pretrained(here / "schedulers" / name)
    print(name, sum(made.config[key] != value for key, value in values.items() if not key.startswith("_")))
