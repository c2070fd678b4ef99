"""Whole sampling loops of diffusers' Euler, ancestral Euler, Heun, LCM and flow-matching schedulers, from
the same noise and with the same stand-in for a network as euler_schedulers.rs has.

Every combination of prediction type, beta schedule and timestep spacing, and every other option, at 5, 10
and 25 steps. Flow matching also at even noise levels, which no file can ask for. What upstream refuses, and
what ends in NaN there, is kept as such."""

import itertools
import json
import warnings

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import (
    scheduling_euler_ancestral_discrete,
    scheduling_flow_match_euler_discrete,
    scheduling_lcm,
)
from diffusers.utils import logging
from safetensors.torch import save_file

from common import FIXTURES, signal

warnings.simplefilter("ignore")
logging.set_verbosity(logging.CRITICAL)
torch.set_grad_enabled(False)
torch.set_num_threads(1)

FLOW = {
    "flow-euler": FlowMatchEulerDiscreteScheduler,
    "flow-heun": FlowMatchHeunDiscreteScheduler,
}
CLASSES = {
    "euler": EulerDiscreteScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "lcm": LCMScheduler,
    **FLOW,
}
# Compared in make_schedulers.py; here they read the files of the others.
OLDER = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
STEPS = (5, 10, 25)
SHAPE = (2, 3, 2, 2)
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

step_of_noise = 0


def noise(shape, generator=None, device=None, dtype=None, layout=None):
    return signal(f"euler/noise/{step_of_noise}", tuple(shape)).to(dtype)


for module in (scheduling_euler_ancestral_discrete, scheduling_lcm, scheduling_flow_match_euler_discrete):
    module.randn_tensor = noise


def network(sample, t, trained):
    """Not linear, but for much noise, where it takes the sample for the noise: so that predicted samples
    stay small."""
    x = sample.float()
    u = x / (x.abs() + 1)
    w = min(max(t / trained, 0) * 1.1, 0.999)
    out = x * w + (torch.sin(u * 2.5 + 0.013 * t) * 0.9 + u * 0.2) * (1 - w)
    return out.to(sample.dtype)


def set_timesteps(scheduler, steps, levels):
    """`levels` "even": the sigmas 1, 1 - 1/steps, ..., 1/steps before the scheduler shifts them."""
    if levels is None:
        scheduler.set_timesteps(steps)
    elif isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    else:
        # Heun's takes no sigmas. It goes evenly from one of these to the other.
        scheduler.sigma_max, scheduler.sigma_min = 1.0, 1 / steps
        scheduler.set_timesteps(steps)


def loop(scheduler, steps, dtype="f32", levels=None):
    """The timesteps, and the last sample. As pipelines do: the scheduler scales noise and input."""
    global step_of_noise
    set_timesteps(scheduler, steps, levels)
    # Else a first timestep that occurs twice makes upstream skip a step, and end with an error.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    sample = (signal("euler/start", SHAPE) * 1.7).to(DTYPES[dtype]) * getattr(scheduler, "init_noise_sigma", 1.0)
    for step_of_noise, t in enumerate(scheduler.timesteps):
        scale = getattr(scheduler, "scale_model_input", lambda sample, t: sample)
        out = network(scale(sample, t), t.item(), scheduler.config.num_train_timesteps)
        sample = scheduler.step(out, t, sample).prev_sample
        assert sample.dtype == DTYPES[dtype]
    return scheduler.timesteps.float(), sample.float()


class Cases:
    def __init__(self):
        self.cases, self.samples, self.timesteps = [], [], []

    def add(self, scheduler, config, steps=10, **options):
        """`config` as scheduler_config.json; `options` are those of loop()."""
        case = {"scheduler": scheduler, "config": json.dumps(config), "steps": steps, **options}
        sample = None
        try:
            # What the folder's class does not know, from_config leaves out.
            made = (CLASSES | OLDER)[scheduler].from_config(config)
            timesteps, sample = loop(made, steps, **options)
            if not sample.isfinite().all():
                case["refused"], sample = "NaN", None
        except Exception as e:  # noqa: BLE001: whatever upstream stumbles over
            case["refused"] = f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
        if sample is not None:
            case["timesteps"] = [sum(map(len, self.timesteps)), len(timesteps)]
            case["init_noise_sigma"] = float(getattr(made, "init_noise_sigma", 1.0))
            case["row"] = len(self.samples)
            self.samples.append(sample.flatten())
            self.timesteps.append(timesteps)
        self.cases.append(case)
        return sample

    def each(self, scheduler, config, **options):
        return [self.add(scheduler, config, steps, **options) for steps in STEPS]


PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "linspace", "trailing")


def per_option(**values):
    return [{key: value} for key, each in values.items() for value in each]


TRAINED = [float(f"{0.002 + 0.03 * (i / 39) ** 2:.5g}") for i in range(40)]
# Some options show only together with others.
SHARED = [
    *per_option(beta_start=[0.001], beta_end=[0.03], num_train_timesteps=[400]),
    {"trained_betas": TRAINED, "num_train_timesteps": 40},
    *({"steps_offset": n, "timestep_spacing": "leading"} for n in (1, 3)),
]
ZERO_SNR = [
    {"rescale_betas_zero_snr": True, "prediction_type": p, "timestep_spacing": s, "beta_schedule": b}
    for p in PREDICTIONS
    for s in ("trailing", "leading")
    for b in ("scaled_linear", "squaredcos_cap_v2")
]
LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
SIGMAS = [
    *({key: True} for key in LEVELS),
    *({key: True, "timestep_spacing": "leading", "steps_offset": 1} for key in LEVELS),
    *({key: True, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"} for key in LEVELS),
    # Only Euler's class has these keys; the others take them from a file all the same.
    *({key: True, "sigma_min": 0.05, "sigma_max": 10.0} for key in LEVELS),
    {"use_karras_sigmas": True, "use_beta_sigmas": True},
    {"use_exponential_sigmas": True, "use_beta_sigmas": True},
    {"use_karras_sigmas": True, "use_exponential_sigmas": True},
    {"use_karras_sigmas": None},
]
CLIP = [{"clip_sample": True}, {"clip_sample": True, "clip_sample_range": 0.4}]
THRESHOLD = [
    {"thresholding": True},
    {"thresholding": True, "sample_max_value": 1.2, "dynamic_thresholding_ratio": 0.7},
]

OPTIONS = {
    "euler": [
        *SHARED, *ZERO_SNR, *SIGMAS,
        *({"interpolation_type": "log_linear", **more} for more in (
            {}, {"final_sigmas_type": "sigma_min"}, {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"},
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        )),
        *({"final_sigmas_type": "sigma_min", "beta_start": 0.01, **more} for more in ({}, *SIGMAS[:3])),
        *({"timestep_type": "continuous", "prediction_type": p, **more}
          for p in PREDICTIONS for more in ({}, {"use_karras_sigmas": True})),
    ],
    "euler-ancestral": [*SHARED, *ZERO_SNR],
    "heun": [
        *SHARED, *SIGMAS, *CLIP, *({"beta_schedule": "exp", "prediction_type": p} for p in PREDICTIONS),
        {"clip_sample": True, "use_karras_sigmas": True, "prediction_type": "v_prediction"},
    ],
    "lcm": [
        *SHARED, *ZERO_SNR, *CLIP, *THRESHOLD, *({**c, **t} for c in CLIP[1:] for t in THRESHOLD[1:]),
        *per_option(original_inference_steps=[25, 30, 100, 1000, 1001], timestep_scaling=[0.01, 1.0]),
        {"set_alpha_to_one": False},
        {"timestep_scaling": 0.001, "num_train_timesteps": 400},
    ],
    "flow-euler": [
        {},
        *per_option(
            shift=[0.5, 3.0], num_train_timesteps=[400], invert_sigmas=[True], shift_terminal=[0.1, 0.0],
            stochastic_sampling=[True], time_shift_type=["linear", "cubic"], use_dynamic_shifting=[True],
            base_shift=[0.6, None], max_image_seq_len=[1024],
        ),
        *({key: True, **more} for key in LEVELS for more in (
            {}, {"shift": 3.0}, {"sigma_min": 0.05, "sigma_max": 0.9}, {"shift_terminal": 0.1},
        )),
        {"use_karras_sigmas": True, "use_beta_sigmas": True},
        {"shift": 3.0, "shift_terminal": 0.05},
        {"shift": 3.0, "invert_sigmas": True},
        {"shift": 3.0, "stochastic_sampling": True},
        {"invert_sigmas": True, "stochastic_sampling": True},
        {"shift": 2.0, "num_train_timesteps": 50, "use_exponential_sigmas": True, "stochastic_sampling": True},
    ],
}

FLOW_HEUN_OPTIONS = [
    *per_option(shift=[0.5, 3.0], num_train_timesteps=[400]),
    {"shift": 2.0, "num_train_timesteps": 50},
]
# At even levels.
EVEN_OPTIONS = {
    "flow-euler": [
        *({"shift": shift, **end} for shift in (1.0, 3.0) for end in ({}, {"shift_terminal": 0.1})),
        {"shift": 0.5},
        {"shift": 3.0, "invert_sigmas": True},
        {"shift": 3.0, "stochastic_sampling": True},
        {"shift": 3.0, "num_train_timesteps": 400},
    ],
    "flow-heun": [{"shift": 1.0}, {"shift": 3.0}, {"shift": 3.0, "num_train_timesteps": 400}],
}

# Without effect by themselves, or with that of the default.
IDLE = (
    {"use_karras_sigmas": None}, {"time_shift_type": "linear"}, {"base_shift": 0.6}, {"base_shift": None},
    {"max_image_seq_len": 1024}, {"shift_terminal": 0.0}, {"set_alpha_to_one": False}, {"original_inference_steps": 100},
    {"original_inference_steps": 1000}, {"original_inference_steps": 25}, {"timestep_scaling": 1.0}, {},
    {"timestep_type": "continuous", "prediction_type": "epsilon"},
)

# scheduler_config.json of Stable Diffusion v1-4, whose scheduler is often exchanged.
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def written(cls):
    """A file with every key."""
    values = {} if cls in FLOW.values() else {"beta_schedule": "scaled_linear", "beta_end": 0.012}
    return json.loads(cls(**values).to_json_string())


def committed():
    cases, idle = Cases(), []
    for scheduler in OPTIONS:
        if scheduler != "flow-euler":
            for p, b, s in itertools.product(PREDICTIONS, SCHEDULES, SPACINGS):
                cases.each(scheduler, {"prediction_type": p, "beta_schedule": b, "timestep_spacing": s})
        base = cases.each(scheduler, {})
        for option in OPTIONS[scheduler]:
            made = cases.each(scheduler, option)
            if option not in IDLE and not (scheduler == "lcm" and "steps_offset" in option):
                seen = [(a - b).abs().max() for a, b in zip(made, base) if a is not None and b is not None]
                if seen and min(seen) < 1e-3:
                    idle.append((scheduler, option, min(seen).item()))
        for dtype in ("bf16", "f16"):
            for p in PREDICTIONS if scheduler != "flow-euler" else ("epsilon",):
                cases.add(scheduler, {"prediction_type": p, "beta_schedule": "scaled_linear"}, dtype=dtype)
        for steps in (1, 2, 3, 7, 33, 50, 61):
            cases.add(scheduler, {}, steps)
            if scheduler in ("euler", "heun"):
                cases.add(scheduler, {"use_karras_sigmas": True, "timestep_spacing": "trailing"}, steps)
        cases.add(scheduler, {"timestep_spacing": "trailing"}, 61)
        if scheduler != "flow-euler":
            cases.add(scheduler, STABLE_DIFFUSION)
            for other in (CLASSES | OLDER).values():
                if other not in FLOW.values():
                    cases.add(scheduler, written(other))
            for wrong in ("quadratic", "exp"):
                if (scheduler, wrong) != ("heun", "exp"):
                    cases.add(scheduler, {"beta_schedule": wrong})
            cases.add(scheduler, {"prediction_type": "noise"})
        else:
            cases.add(scheduler, written(FlowMatchEulerDiscreteScheduler))
            cases.add(scheduler, {"stochastic_sampling": True}, dtype="bf16")
            cases.add(scheduler, {"shift": 3.0}, dtype="f16")
    for scheduler in ("ddim", "pndm", "unipc", "dpmsolver++"):
        for other in CLASSES.values():
            if other not in FLOW.values():
                cases.add(scheduler, written(other))
    for scheduler in ("euler", "euler-ancestral", "heun"):
        cases.add(scheduler, {"timestep_spacing": "middle"})
    for key in ("interpolation_type", "final_sigmas_type"):
        cases.add("euler", {key: "cubic"})
    idle += flow(cases)
    assert not idle, idle
    return cases


def flow(cases):
    """Heun's steps, and even levels; gives the options without effect."""
    idle = []
    base = cases.each("flow-heun", {})
    for option in FLOW_HEUN_OPTIONS:
        made = cases.each("flow-heun", option)
        seen = min((a - b).abs().max() for a, b in zip(made, base))
        if seen < 1e-3:
            idle.append(("flow-heun", option, seen.item()))
    for dtype in ("bf16", "f16"):
        for option in ({}, {"shift": 3.0}):
            cases.add("flow-heun", option, dtype=dtype)
    for steps in (1, 2, 3, 7, 33, 50, 61):
        cases.add("flow-heun", {}, steps)
    # Each class leaves out what only the other one knows.
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1, use_karras_sigmas=True)
    cases.add("flow-heun", json.loads(euler.to_json_string()))
    cases.add("flow-euler", json.loads(FlowMatchHeunDiscreteScheduler(shift=3.0).to_json_string()))
    cases.add("flow-heun", {"shift": 0.0})
    for scheduler, options in EVEN_OPTIONS.items():
        for option in options:
            made = cases.each(scheduler, option, levels="even")
            other = [loop(FLOW[scheduler](**option), steps)[1] for steps in STEPS]
            seen = min((a - b).abs().max() for a, b in zip(made, other))
            # The more steps, the smaller the difference. Unshifted levels are even from 1 to shift_terminal anyway.
            if seen < 3e-4 and option != {"shift": 1.0, "shift_terminal": 0.1}:
                idle.append((scheduler, option, "even", seen.item()))
        for dtype in ("bf16", "f16"):
            cases.add(scheduler, {}, dtype=dtype, levels="even")
        for steps in (1, 2, 3, 50):
            cases.add(scheduler, {}, steps, levels="even")
    # One step's only level is 1, which cannot be moved to shift_terminal.
    cases.add("flow-euler", {"shift_terminal": 0.1}, 1, levels="even")
    return idle


def one_scaled(scheduler, sample, timestep, noise):
    scheduler.set_timesteps(10)
    return scheduler.scale_noise(sample, timestep, noise)


def noised(tensors):
    """add_noise, or flow matching's scale_noise, at timesteps of 10 steps, or for LCM at trained ones."""
    out = []
    x, eps = signal("euler/x", SHAPE), signal("euler/eps", SHAPE)
    for scheduler, cls in CLASSES.items():
        configs = [{}, {"use_karras_sigmas": True}] if scheduler in ("euler", "heun", "flow-euler") else [{}]
        configs += [{"shift": 3.0}] if scheduler in FLOW else [{"beta_schedule": "squaredcos_cap_v2"}]
        for config, dtype, chosen in itertools.product(configs, DTYPES, ([0, 9], [4, 4], [2])):
            made = cls(**config)
            made.set_timesteps(10)
            t = made.timesteps[chosen]
            case = {"scheduler": scheduler, "config": json.dumps(config), "indices": chosen, "dtype": dtype}
            case["row"] = len(tensors)
            to = DTYPES[dtype]
            if scheduler == "flow-euler":
                mixed = made.scale_noise(x.to(to), t, eps.to(to))
            elif scheduler == "flow-heun":
                # It takes one timestep, and stays at the first one.
                rows = range(len(x))
                mixed = torch.cat([one_scaled(cls(**config), x[i].to(to), t[i % len(t)], eps[i].to(to)) for i in rows])
            else:
                mixed = made.add_noise(x.to(to), eps.to(to), t)
            tensors.append(mixed.float().flatten())
            out.append(case)
    return out


if __name__ == "__main__":
    cases, rows = committed(), []
    noise_cases = noised(rows)
    defaults = {name: json.loads(cls().to_json_string()) for name, cls in CLASSES.items()}
    lines = ",\n".join(json.dumps(c) for c in cases.cases)
    noise_lines = ",\n".join(json.dumps(c) for c in noise_cases)
    text = f'{{"cases": [\n{lines}\n],\n"noised": [\n{noise_lines}\n],\n"defaults": {json.dumps(defaults, indent=1)}}}\n'
    (FIXTURES / "euler_schedulers.json").write_text(text)
    tensors = {
        "samples": torch.stack(cases.samples),
        "timesteps": torch.cat(cases.timesteps),
        "noised": torch.stack(rows),
    }
    save_file(tensors, FIXTURES / "euler_schedulers.safetensors")
    for suffix in ("json", "safetensors"):
        print(suffix, (FIXTURES / f"euler_schedulers.{suffix}").stat().st_size, "bytes")
    refused = [c for c in cases.cases if "refused" in c]
    print(len(cases.cases), "loops,", len(refused), "refused:")
    for c in refused:
        print("  ", c["scheduler"], c["config"][:120], c["steps"], c["refused"])
    large = [c for c in cases.cases if "row" in c and cases.samples[c["row"]].abs().max() > 10]
    for c in large:
        print("  large:", c["scheduler"], c["config"][:100], c["steps"], cases.samples[c["row"]].abs().max().item())
