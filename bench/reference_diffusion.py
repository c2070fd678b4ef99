#!/usr/bin/env python3
"""The yardstick for diffusion: training steps in plain PyTorch and diffusers, as a careful user writes them.

`ddpm` follows diffusers' train_unconditional.py with the paper's network (128 px, batch 16), told the
class; `controlnet` follows train_controlnet.py from a small text model (--base, which
`bench_diffusion --task base` writes); `flow` is the preset `cpu` as flow matching, and `flow-sample` makes a batch of
its images in 10 steps of Euler's method. --compile and --channels-last do what their names say. Images lie in memory and are not augmented. Timed are whole steps;
the first ones, in which libtorch chooses its kernels, are left out of the median. bf16 is torch's
autocast; in `controlnet` the frozen networks are held in bf16, as the script has them. Prints one JSON
document.

    python bench/reference_diffusion.py --task ddpm
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.optimization import get_scheduler
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from transformers import CLIPTextModel

IMAGES = 24


class Ddpm:
    """The paper's network, 28 M parameters, on pixels."""

    batch_size, rate, schedule, warmup_steps = 16, 1e-4, "cosine", 500

    def __init__(self, _base, _kind, device):
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.trained = UNet2DModel(
            sample_size=128,
            in_channels=1,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(64, 64, 128, 128, 256, 256),
            down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
            num_class_embeds=4,
        ).to(device)
        self.data = TensorDataset(torch.rand(IMAGES, 1, 128, 128) * 2 - 1, torch.randint(0, 4, (IMAGES,)))

    def prepare(self, images, _labels):
        return images

    def predict(self, noisy, timesteps, labels):
        return self.trained(noisy, timesteps, labels).sample


class ControlNet:
    """A ControlNet beside a frozen U-Net, text encoder and autoencoder."""

    batch_size, rate, schedule, warmup_steps = 4, 5e-6, "constant", 0

    def __init__(self, base, kind, device):
        base = Path(base) / "pipeline"

        def frozen(network, part):
            return network.from_pretrained(base / part, torch_dtype=kind).requires_grad_(False).to(device)

        self.scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
        self.autoencoder = frozen(AutoencoderKL, "vae")
        self.text_encoder = frozen(CLIPTextModel, "text_encoder")
        self.unet = frozen(UNet2DConditionModel, "unet")
        self.trained = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(base / "unet")).to(device)
        self.kind = kind
        words = self.text_encoder.config.vocab_size
        side = self.autoencoder.config.sample_size
        self.data = TensorDataset(
            torch.rand(IMAGES, self.autoencoder.config.in_channels, side, side) * 2 - 1,
            torch.randint(0, 4, (IMAGES, 1, side, side)).div(3).expand(-1, 3, -1, -1),
            torch.randint(0, words, (IMAGES, self.text_encoder.config.max_position_embeddings)),
        )

    def prepare(self, images, _control, _tokens):
        with torch.no_grad():
            latents = self.autoencoder.encode(images.to(self.kind)).latent_dist.sample()
        return (latents * self.autoencoder.config.scaling_factor).float()

    def predict(self, noisy, timesteps, control, tokens):
        with torch.no_grad():
            text = self.text_encoder(tokens)[0]
        noisy = noisy.to(self.kind)
        down, mid = self.trained(
            noisy,
            timesteps,
            encoder_hidden_states=text,
            controlnet_cond=control.to(self.kind),
            return_dict=False,
        )
        return self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=text,
            down_block_additional_residuals=[sample.to(self.kind) for sample in down],
            mid_block_additional_residual=mid.to(self.kind),
        ).sample


class Flow:
    """The preset `cpu`: flow matching on 128 px folded to 16 x 32 x 32, told the class."""

    batch_size, rate, schedule, warmup_steps = 16, 1e-3, "cosine", 200
    steps = 10

    def __init__(self, _base, _kind, device):
        self.trained = UNet2DModel(
            sample_size=32,
            in_channels=16,
            out_channels=16,
            layers_per_block=1,
            block_out_channels=(96, 128, 160),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            attention_head_dim=32,
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=5,
        ).to(device)
        self.device = device
        self.data = TensorDataset(torch.rand(IMAGES, 1, 128, 128) * 2 - 1, torch.randint(0, 4, (IMAGES,)))

    def prepare(self, images, _labels):
        return functional.pixel_unshuffle(images, 4)

    def predict(self, noisy, timesteps, labels):
        return self.trained(noisy, timesteps, labels).sample

    def mix(self, sample, noise):
        """Noisy samples, their timesteps, and what the network has to find."""
        share = torch.rand(len(sample), device=sample.device)
        noisy = torch.lerp(sample, noise, share.view(-1, 1, 1, 1))
        return noisy, share * 1000, noise - sample

    @torch.no_grad()
    def sample(self, low, layout):
        labels = torch.randint(0, 4, (self.batch_size,), device=self.device)
        sample = torch.randn(self.batch_size, 16, 32, 32, device=self.device).to(memory_format=layout)
        for step in range(self.steps):
            timestep = torch.full((self.batch_size,), 1000 * (1 - step / self.steps), device=self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                velocity = self.predict(sample, timestep, labels)
            sample = sample - velocity.float() / self.steps
        return (functional.pixel_shuffle(sample, 4) / 2 + 0.5).clamp(0, 1)


TASKS = {"ddpm": Ddpm, "controlnet": ControlNet, "flow": Flow, "flow-sample": Flow}


def batches(loader):
    """Epoch after epoch."""
    while True:
        yield from loader


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=sorted(TASKS))
    parser.add_argument("--base", help="controlnet: the text model's folder")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--steps", type=int, default=6, help="steps to time; the median counts")
    parser.add_argument("--warmup-steps", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile the trained network")
    parser.add_argument("--channels-last", action="store_true", help="channels innermost in memory")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (its own choice without)")
    arguments = parser.parse_args()
    if arguments.task == "controlnet" and not arguments.base:
        sys.exit("error: controlnet needs --base\n  help: bench_diffusion --task base --base DIR writes one")

    torch.manual_seed(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    low = arguments.precision == "bf16"
    device = torch.device(arguments.device)
    task = TASKS[arguments.task](arguments.base, torch.bfloat16 if low else torch.float32, device)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    task.trained.to(memory_format=layout)
    parameters = list(task.trained.parameters())
    if arguments.compile:
        task.trained = torch.compile(task.trained)
    if arguments.task == "flow-sample":
        return report(arguments, task, parameters, sampled(arguments, task, low, layout))
    task.trained.train()
    optimizer = torch.optim.AdamW(parameters, lr=task.rate)
    rates = get_scheduler(
        task.schedule, optimizer, num_warmup_steps=task.warmup_steps, num_training_steps=10_000
    )
    loader = DataLoader(
        task.data, batch_size=task.batch_size, shuffle=True, drop_last=True, pin_memory=device.type != "cpu"
    )
    seconds, losses = [], []
    source = batches(loader)
    for step in range(arguments.warmup_steps + arguments.steps):
        start = time.perf_counter()
        images, *conditions = (part.to(device, non_blocking=True) for part in next(source))
        sample = task.prepare(images, *conditions).to(memory_format=layout)
        noise = torch.randn_like(sample)
        if hasattr(task, "mix"):
            noisy, timesteps, noise = task.mix(sample, noise)
        else:
            timesteps = torch.randint(0, 1000, (len(sample),), device=device)
            noisy = task.scheduler.add_noise(sample, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            predicted = task.predict(noisy, timesteps, *conditions)
        loss = functional.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if device.type != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        print(f"step {step + 1}: {seconds[-1]:.2f} s, loss {losses[-1]:.4f}", file=sys.stderr)
    report(arguments, task, parameters, seconds, losses)


def sampled(arguments, task, low, layout):
    """Seconds that each batch of images takes."""
    task.trained.eval()
    seconds = []
    for step in range(arguments.warmup_steps + arguments.steps):
        start = time.perf_counter()
        task.sample(low, layout).cpu()
        seconds.append(time.perf_counter() - start)
        print(f"batch {step + 1}: {seconds[-1]:.2f} s", file=sys.stderr)
    return seconds


def report(arguments, task, parameters, seconds, losses=()):
    result = {
        "task": arguments.task,
        "precision": arguments.precision,
        "compiled": arguments.compile,
        "channels_last": arguments.channels_last,
        "images": task.batch_size,
        "trained_parameters": sum(p.numel() for p in parameters),
        "seconds_per_step": round(statistics.median(seconds[arguments.warmup_steps :]), 4),
        "seconds": [round(value, 4) for value in seconds],
        "last_loss": round(losses[-1], 5) if losses else None,
        "threads": torch.get_num_threads(),
        "device": arguments.device,
        "version": f"torch {torch.__version__}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
