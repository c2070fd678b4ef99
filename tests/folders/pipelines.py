"""Tiny pipelines in diffusers: `make DIR TOKENIZER` writes them, `compare DIR` loads each beside what was
written from it (NAME and NAME-written) and wants the same weights, settings and images."""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIZE = 16


def parts(tokenizer):
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    return {
        "unet": unet,
        "vae": AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=4,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        ),
        "tokenizer": tokenizer,
        "scheduler": UniPCMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    }


def make(folder, tokenizer):
    stable = parts(tokenizer)
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    controlnet = ControlNetModel.from_unet(stable["unet"], conditioning_embedding_out_channels=(16, 32))
    for parameter in controlnet.parameters():
        # The zero convolutions would hide a fault.
        torch.nn.init.normal_(parameter, std=0.05)
    ddpm = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    pipelines = [
        (DDPMPipeline(ddpm, DDPMScheduler()), {}),
        (StableDiffusionPipeline(**stable, **none), {}),
        # Shards.
        (StableDiffusionControlNetPipeline(**stable, **none, controlnet=controlnet), {"max_shard_size": "500KB"}),
    ]
    for pipeline, form in pipelines:
        pipeline.save_pretrained(folder / type(pipeline).__name__, **form)


def image(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 2, "output_type": "np", "generator": torch.Generator().manual_seed(1)}
    if not isinstance(pipeline, DDPMPipeline):
        arguments |= {"prompt": "a heart", "negative_prompt": "noise", "height": SIZE, "width": SIZE}
    if isinstance(pipeline, StableDiffusionControlNetPipeline):
        arguments["image"] = torch.linspace(0, 1, SIZE * SIZE).reshape(1, 1, SIZE, SIZE).expand(1, 3, SIZE, SIZE)
    return pipeline(**arguments).images


def compare(folder):
    for cls in (DDPMPipeline, StableDiffusionPipeline, StableDiffusionControlNetPipeline):
        name = cls.__name__
        first = cls.from_pretrained(folder / name)
        second = DiffusionPipeline.from_pretrained(folder / f"{name}-written")
        assert type(second) is cls, type(second)
        for part, one in first.components.items():
            other = second.components[part]
            assert type(one) is type(other), part
            if isinstance(one, torch.nn.Module):
                a, b = one.state_dict(), other.state_dict()
                assert list(a) == list(b), part
                assert all(torch.equal(a[key], b[key]) for key in a), part
            elif part == "scheduler":
                hidden = ("_name_or_path", "_diffusers_version", "_use_default_values")
                settings = [{k: v for k, v in s.config.items() if k not in hidden} for s in (one, other)]
                assert settings[0] == settings[1], settings
            elif part == "tokenizer":
                assert one("A heart, café").input_ids == other("A heart, café").input_ids
        a, b = image(first), image(second)
        assert np.isfinite(a).all() and a.std() > 0.01, a.std()
        assert np.array_equal(a, b), np.abs(a - b).max()
        print(name, "is the same")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        compare(Path(sys.argv[2]))
