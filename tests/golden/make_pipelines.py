"""Images of diffusers' pipelines, whole: from given latents, on weights that Rust makes alike.

The networks' configurations go into pipelines.json as upstream writes them; the weights are not kept."""

import json
import sys

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from common import FIXTURES, fill, signal, write_json

torch.set_grad_enabled(False)
diffusers.utils.logging.set_verbosity_error()

STEPS = 20
FLOW_STEPS = 10
PROMPT = "An ultrasound image shows the heart in a two-chamber view during the ed phase."
NEGATIVE = "a photograph of a horse"
SCHEDULERS = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
# Most of them scale noise and input, which the text pipelines do and the unconditional ones do not.
SCALING = {
    "euler": EulerDiscreteScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "lcm": LCMScheduler,
}
# Stable Diffusion v1's, as its first folders have it: without clip_sample and with steps_offset 0, which
# the text pipeline mends and the one with a ControlNet does not.
SD1 = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=24,
    attention_head_dim=4,
)
CONTROLNET = {k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")}

tensors, configs, cases = {}, {}, []


def network(key, made):
    """Fills a network; the last layer is small, so that guided predictions stay in bounds."""
    fill(made.eval(), key)
    for name in ("conv_out.weight", "controlnet_mid_block.weight"):
        state = made.state_dict()
        if name in state and not key.startswith("vae"):
            state[name].mul_(0.25)
    configs[key] = written(made)
    return made


def written(made):
    """What goes into the folder."""
    return json.loads(made.to_json_string())


def loaded(kind, **values):
    """A scheduler as a folder gives it: with every key, and none marked as a default, which
    `from_config` of another class would leave out."""
    return kind.from_config(written(kind(**values)))


def text_encoder(key, tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    made = CLIPTextModel(config).eval()
    fill(torch.nn.ModuleDict({"text_model": made}), key)
    configs[key] = config.to_dict() | {"architectures": ["CLIPTextModel"]}
    return made


class Noise:
    """The schedulers' noise, from the same numbers as Rust's."""

    def __init__(self, key):
        self.key, self.drawn = key, 0

    def __call__(self, shape, generator=None, device=None, dtype=None, layout=None):
        noise = signal(f"{self.key}/{self.drawn}", tuple(shape))
        self.drawn += 1
        return noise


def run(name, pipeline, scheduler, latents, steps=STEPS, levels=None, **request):
    """`levels` "even": the sigmas that diffusers' pipelines for flow matching give their scheduler."""
    sigmas = np.linspace(1.0, 1 / steps, steps) if levels == "even" else None
    noise = Noise(f"{name}/noise")
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("diffusers.") and hasattr(module, "randn_tensor"):
            module.randn_tensor = noise
    if isinstance(pipeline, ScalingPipeline):
        images = pipeline(latents.clone())
    elif isinstance(pipeline, (DDPMPipeline, DDIMPipeline)):
        # They take no latents: the first noise that is drawn is them.
        first, drawn = latents, []

        def randn(shape, **_):
            if not drawn:
                drawn.append(True)
                return first.clone()
            return noise(shape)

        sys.modules[type(pipeline).__module__].randn_tensor = randn
        if sigmas is not None:
            # They take no sigmas either.
            set_timesteps = pipeline.scheduler.set_timesteps
            pipeline.scheduler.set_timesteps = lambda _: set_timesteps(sigmas=sigmas)
        images = pipeline(batch_size=latents.shape[0], num_inference_steps=steps, output_type="np").images
    else:
        images = pipeline(
            latents=latents.clone(), num_inference_steps=steps, sigmas=sigmas, output_type="np", **request
        ).images
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    within = ((images > 0.01) & (images < 0.99)).float().mean().item()
    print(f"{name}: {tuple(images.shape)}, std {images.std().item():.3f}, {within:.2f} within bounds")
    tensors[name] = images
    case = {"name": name, "scheduler": scheduler, "latents": list(latents.shape)}
    if steps != STEPS:
        case["steps"] = steps
    if levels is not None:
        case["levels"] = levels
    cases.append(case)


class ScalingPipeline:
    """DDPMPipeline as it would be for schedulers that scale."""

    def __init__(self, unet, scheduler):
        self.unet, self.scheduler = unet, scheduler

    def __call__(self, latents):
        self.scheduler.set_timesteps(STEPS)
        sample = latents * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            predicted = self.unet(self.scheduler.scale_model_input(sample, t), t).sample
            sample = self.scheduler.step(predicted, t, sample).prev_sample
        return (sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


unet2d = network(
    "unet2d",
    UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    ),
)
config = loaded(DDPMScheduler, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
configs["unconditional/scheduler"] = written(config)
for key, kind in SCHEDULERS.items():
    name = f"unconditional/{key}"
    pipeline = DDPMPipeline(unet2d, kind.from_config(config.config))
    pipeline.set_progress_bar_config(disable=True)
    if key in ("pndm", "unipc"):
        # The pipeline hands on a generator, which these two do not take.
        step = pipeline.scheduler.step
        pipeline.scheduler.step = lambda *args, generator=None, step=step: step(*args)
    run(name, pipeline, key, signal(name, (2, 1, 16, 16)) * 1.7)
run("unconditional/ddim-pipeline", DDIMPipeline(unet2d, config), None, signal("unconditional/ddim-pipeline", (2, 1, 16, 16)))

for key, kind in SCALING.items():
    name = f"unconditional/{key}"
    run(name, ScalingPipeline(unet2d, kind.from_config(config.config)), key, signal(name, (2, 1, 16, 16)) * 1.7)
flow = loaded(FlowMatchEulerDiscreteScheduler, shift=2.0)
configs["unconditional/flow/scheduler"] = written(flow)
pipeline = DDPMPipeline(unet2d, flow)
pipeline.set_progress_bar_config(disable=True)
run("unconditional/flow", pipeline, None, signal("unconditional/flow", (2, 1, 16, 16)) * 1.7)
for name, key, kind, levels in (
    ("unconditional/flow-even", None, FlowMatchEulerDiscreteScheduler, "even"),
    ("unconditional/flow-heun", "flow-heun", FlowMatchHeunDiscreteScheduler, None),
):
    pipeline = DDPMPipeline(unet2d, kind.from_config(written(flow)))
    pipeline.set_progress_bar_config(disable=True)
    run(name, pipeline, key, signal(name, (2, 1, 16, 16)) * 1.7, steps=FLOW_STEPS, levels=levels)

tokenizer = CLIPTokenizer.from_pretrained(FIXTURES / "tokenizer/v5")
parts = dict(
    tokenizer=tokenizer,
    text_encoder=text_encoder("text_encoder", tokenizer),
    unet=network("unet", UNet2DConditionModel(**UNET)),
    vae=network(
        "vae",
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=16,
        ),
    ),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
request = dict(prompt=[PROMPT] * 2, negative_prompt=[NEGATIVE] * 2, guidance_scale=7.5)
configs["text/scheduler"] = written(loaded(PNDMScheduler, **SD1, skip_prk_steps=True))
for key, kind in (SCHEDULERS | SCALING).items():
    name = f"text/{key}"
    pipeline = StableDiffusionPipeline(**parts, scheduler=loaded(PNDMScheduler, **SD1, skip_prk_steps=True))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    run(name, pipeline, key, signal(name, (2, 4, 8, 8)) * 1.7, **request)
own = loaded(EulerDiscreteScheduler, **SD1, use_karras_sigmas=True, timestep_spacing="leading", steps_offset=1)
configs["text/own/scheduler"] = written(own)
pipeline = StableDiffusionPipeline(**parts, scheduler=own)
pipeline.set_progress_bar_config(disable=True)
run("text/own", pipeline, None, signal("text/own", (2, 4, 8, 8)) * 1.7, **request)
# As a model trained here has it. The pipeline asks every scheduler for the attribute, which this one lacks.
flow = loaded(FlowMatchEulerDiscreteScheduler)
configs["text/flow/scheduler"] = written(flow)
flow.init_noise_sigma = 1.0
pipeline = StableDiffusionPipeline(**parts, scheduler=flow)
pipeline.set_progress_bar_config(disable=True)
latents = signal("text/flow", (2, 4, 8, 8)) * 1.7
run("text/flow", pipeline, None, latents, steps=FLOW_STEPS, levels="even", **request)
# As the folder has it, which the pipeline mends.
configs["text/mended/scheduler"] = written(loaded(DDIMScheduler, **SD1))
pipeline = StableDiffusionPipeline(**parts, scheduler=loaded(DDIMScheduler, **SD1))
pipeline.set_progress_bar_config(disable=True)
run("text/mended", pipeline, None, signal("text/mended", (2, 4, 8, 8)) * 1.7, **request)
run("text/unguided", pipeline, None, signal("text/unguided", (2, 4, 8, 8)) * 1.7, prompt=[PROMPT] * 2, guidance_scale=1.0)
run("text/size", pipeline, None, signal("text/size", (2, 4, 8, 12)) * 1.7, height=16, width=24, **request)

controlnet = network("controlnet", ControlNetModel(**CONTROLNET, conditioning_embedding_out_channels=(8, 16)))
control = (signal("control", (1, 3, 16, 16)) + 1) / 2
for key, kind in (SCHEDULERS | {"euler": EulerDiscreteScheduler}).items():
    name = f"control/{key}"
    pipeline = StableDiffusionControlNetPipeline(
        **parts, controlnet=controlnet, scheduler=kind.from_config(loaded(PNDMScheduler, **SD1, skip_prk_steps=True).config)
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = signal(name, (2, 4, 8, 8)) * 1.7
    run(name, pipeline, key, latents, image=control, controlnet_conditioning_scale=0.8, **request)

save_file(tensors, FIXTURES / "pipelines.safetensors")
print("pipelines.safetensors", (FIXTURES / "pipelines.safetensors").stat().st_size, "bytes")
write_json("pipelines.json", {"steps": STEPS, "prompt": PROMPT, "negative_prompt": NEGATIVE, "configs": configs, "cases": cases})
