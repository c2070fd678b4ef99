"""Whole sampling loops of diffusers' schedulers, from the same noise and with the same stand-in for a
network as schedulers.rs has.

Every combination of prediction type, beta schedule and timestep spacing at 5, 20 and 50 steps, every
other option at 20 steps. What upstream refuses, and what ends in NaN there, is kept as such."""

import itertools
import json
import warnings

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm, scheduling_dpmsolver_multistep
from diffusers.utils import logging
from safetensors.torch import save_file

from common import FIXTURES, signal

warnings.simplefilter("ignore")
logging.set_verbosity(logging.CRITICAL)
torch.set_grad_enabled(False)

CLASSES = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
SHAPE = (2, 3, 4, 4)
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

step_of_noise = 0


def noise(shape, generator=None, device=None, dtype=None, layout=None):
    return signal(f"schedulers/noise/{step_of_noise}", tuple(shape)).to(dtype)


for module in (scheduling_ddpm, scheduling_ddim, scheduling_dpmsolver_multistep):
    module.randn_tensor = noise


def network(sample, t, trained, doubled):
    """Not linear, but for much noise, where it takes the sample for the noise: so that predicted
    samples stay small."""
    x = sample.float()
    u = x / (x.abs() + 1)
    w = min(t / trained * 1.1, 0.999)
    out = x * w + (torch.sin(u * 2.5 + 0.013 * t) * 0.9 + u * 0.2) * (1 - w)
    if doubled:
        out = torch.cat([out, out.square() * 0.5], dim=1)
    return out.to(sample.dtype)


def loop(scheduler, steps, dtype="f32", **step_options):
    """Timesteps and the last sample."""
    global step_of_noise
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # Else a first timestep that occurs twice makes upstream skip a step, and end with an error.
        scheduler.set_begin_index(0)
    doubled = str(scheduler.config.get("variance_type")).startswith("learned")
    sample = (signal("schedulers/start", SHAPE) * 1.7).to(DTYPES[dtype])
    for step_of_noise, t in enumerate(scheduler.timesteps.tolist()):
        out = network(sample, t, scheduler.config.num_train_timesteps, doubled)
        sample = scheduler.step(out, t, sample, **step_options).prev_sample
        assert sample.dtype == DTYPES[dtype]
    return scheduler.timesteps.tolist(), sample.float()


class Cases:
    def __init__(self):
        self.cases, self.samples = [], []

    def add(self, scheduler, config, steps=20, **options):
        """`config` as scheduler_config.json; `options` are those of loop()."""
        case = {"scheduler": scheduler, "config": json.dumps(config), "steps": steps, **options}
        sample = None
        try:
            # What the folder's class does not know, from_config leaves out.
            made = CLASSES[scheduler].from_config(config)
            case["timesteps"], sample = loop(made, steps, **options)
            if not sample.isfinite().all():
                case["refused"], sample = "NaN", None
        except Exception as e:  # noqa: BLE001: whatever upstream stumbles over
            case["refused"] = f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
        if sample is None:
            case.pop("timesteps", None)
        else:
            case["row"] = len(self.samples)
            self.samples.append(sample.flatten())
        self.cases.append(case)
        return sample

    def tensor(self):
        return torch.stack(self.samples)


PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "linspace", "trailing")


def combinations(cases, scheduler, steps, **more):
    for p, b, s, n in itertools.product(PREDICTIONS, SCHEDULES, SPACINGS, steps):
        cases.add(scheduler, {"prediction_type": p, "beta_schedule": b, "timestep_spacing": s, **more}, n)


def per_option(**values):
    return [{key: value} for key, each in values.items() for value in each]


TRAINED = (np.linspace(0.01, 0.2, 1000) ** 3).tolist()
TRAINED = [float(f"{b:.5g}") for b in TRAINED]
SHARED = per_option(beta_end=[0.012], steps_offset=[1, 3], num_train_timesteps=[400], trained_betas=[TRAINED])
THRESHOLD = [
    {"thresholding": True},
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
]
ZERO_SNR = [
    {"rescale_betas_zero_snr": True, "prediction_type": p, "timestep_spacing": s, "beta_schedule": b}
    for p in PREDICTIONS
    for s in ("trailing", "leading")
    for b in ("scaled_linear", "squaredcos_cap_v2")
]
CLIP = per_option(clip_sample=[False], clip_sample_range=[0.7])
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
SIGMAS = [
    *per_option(use_karras_sigmas=[True], use_exponential_sigmas=[True]),
    {"use_karras_sigmas": True, "use_exponential_sigmas": True},
    {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
    {"use_exponential_sigmas": True, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
    {"use_exponential_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
]

OPTIONS = {
    "ddpm": [
        *SHARED, *THRESHOLD, *ZERO_SNR, *CLIP, *per_option(variance_type=VARIANCES),
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "thresholding": True},
    ],
    "ddim": [
        *SHARED, *THRESHOLD, *ZERO_SNR, *CLIP, {"set_alpha_to_one": False, "beta_start": 0.01},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False},
    ],
    "pndm": [
        *SHARED, {"set_alpha_to_one": True, "beta_start": 0.01},
        {"skip_prk_steps": True, "set_alpha_to_one": True},
        *({"skip_prk_steps": True, **o} for o in SHARED),
    ],
    "unipc": [
        *SHARED, *THRESHOLD, *ZERO_SNR, *SIGMAS,
        *({"solver_order": o, "prediction_type": p} for o in (1, 2, 3) for p in PREDICTIONS),
        *(
            {"solver_type": t, "predict_x0": x, "solver_order": o, "prediction_type": p, "final_sigmas_type": "sigma_min"}
            for t in ("bh1", "bh2") for x in (True, False) for o in (1, 2, 3) for p in PREDICTIONS
        ),
        *per_option(
            solver_type=["bh1", "midpoint", "heun", "logrho"], predict_x0=[False], lower_order_final=[False],
            disable_corrector=[[0, 8, 9], [0, 1, 5], list(range(20))], final_sigmas_type=["sigma_min"],
        ),
        *({"lower_order_final": False, "solver_order": o, "final_sigmas_type": "sigma_min"} for o in (1, 2, 3)),
        {"lower_order_final": False, "solver_order": 1},
        {"lower_order_final": False, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "use_karras_sigmas": True},
        {"predict_x0": False, "thresholding": True, "final_sigmas_type": "sigma_min"},
    ],
    "dpmsolver++": [
        *SHARED, *THRESHOLD, *ZERO_SNR, *SIGMAS,
        *(
            {"solver_order": o, "solver_type": t, "algorithm_type": a, "final_sigmas_type": f, "prediction_type": p}
            for o in (1, 2, 3) for t in ("midpoint", "heun") for a in ("dpmsolver++", "sde-dpmsolver++")
            for f in ("zero", "sigma_min") for p in ("epsilon", "v_prediction")
        ),
        *per_option(
            solver_type=["logrho", "bh1", "bh2"], algorithm_type=["deis"], use_lu_lambdas=[True],
            lower_order_final=[False], euler_at_final=[True], lambda_min_clipped=[-2.5, -3, 20],
            variance_type=["learned", "learned_range", "fixed_small"],
        ),
        {"use_lu_lambdas": True, "beta_schedule": "squaredcos_cap_v2"},
        {"use_lu_lambdas": True, "rescale_betas_zero_snr": True, "beta_end": 0.1, "prediction_type": "sample"},
        {"use_lu_lambdas": True, "use_karras_sigmas": True},
        {"use_lu_lambdas": True, "use_exponential_sigmas": True},
        *({"lambda_min_clipped": -3.0, "timestep_spacing": s} for s in SPACINGS),
        *({"lambda_min_clipped": -5.1, "timestep_spacing": s, "beta_schedule": "squaredcos_cap_v2"} for s in SPACINGS),
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        {"solver_type": "heun", "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    ],
}

# Without effect by themselves, or with that of the default.
NO_EFFECT = (
    [{"steps_offset": n} for n in (1, 3)]
    + [{"variance_type": v} for v in VARIANCES]
    + [{"solver_type": t} for t in ("midpoint", "heun", "logrho", "bh1", "bh2")]
    # With the default largest value, what clip_sample does.
    + [{"thresholding": True}]
    + [{"algorithm_type": "deis"}, {"euler_at_final": True}, {"lower_order_final": False}]
)

# scheduler_config.json as folders have it: Stable Diffusion v1-4's, and those of exchanged schedulers.
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


def committed():
    cases, idle = Cases(), []
    for scheduler in CLASSES:
        for more in [{}, {"skip_prk_steps": True}] if scheduler == "pndm" else [{}]:
            combinations(cases, scheduler, (5, 20, 50), **more)
        base = cases.add(scheduler, {})
        for option in OPTIONS[scheduler]:
            sample = cases.add(scheduler, option)
            if sample is not None and option not in NO_EFFECT:
                same = all(CLASSES[scheduler]().config[k] == v for k, v in option.items())
                other = option.get("prediction_type", "epsilon") != "epsilon" or len(option) > 2
                if not (same or other) and (sample - base).abs().max() < 1e-3:
                    idle.append((scheduler, option, (sample - base).abs().max().item()))
        for dtype in ("bf16", "f16"):
            for p in PREDICTIONS:
                cases.add(scheduler, {"prediction_type": p, "beta_schedule": "scaled_linear"}, dtype=dtype)
        for steps in (1, 2, 3, 7, 33):
            cases.add(scheduler, {}, steps)
        cases.add(scheduler, STABLE_DIFFUSION)
        for other in CLASSES.values():
            file = dict(json.loads(other(beta_schedule="scaled_linear", beta_end=0.012).to_json_string()))
            cases.add(scheduler, file)
    assert not idle, idle
    for o in (1, 2, 3):
        cases.add("dpmsolver++", {"solver_order": o, "lower_order_final": False}, 10)
        cases.add("dpmsolver++", {"solver_order": o, "algorithm_type": "sde-dpmsolver++"}, 10)
        cases.add("dpmsolver++", {"solver_order": o, "final_sigmas_type": "sigma_min"}, 10)
    for eta, clipped in ((0.5, False), (1.0, False), (0.0, True), (1.0, True)):
        for p in PREDICTIONS:
            cases.add("ddim", {"prediction_type": p}, eta=eta, use_clipped_model_output=clipped)
    cases.add("ddim", {}, eta=1.0, dtype="bf16")
    for scheduler in ("ddpm", "ddim"):
        cases.add(scheduler, {}, 1001)
        cases.add(scheduler, {"steps_offset": 1}, 1000)
    cases.add("pndm", {}, 3)
    cases.add("pndm", {"skip_prk_steps": True, "steps_offset": 1}, 1000)
    for scheduler in CLASSES:
        cases.add(scheduler, {"beta_schedule": "quadratic"})
        cases.add(scheduler, {"timestep_spacing": "middle"})
        cases.add(scheduler, {"prediction_type": "noise"})
    return cases


def noised(tensors):
    """add_noise and get_velocity; the multistep solvers' after set_timesteps."""
    out = []
    x, eps = signal("schedulers/x", SHAPE), signal("schedulers/eps", SHAPE)
    for scheduler, cls in CLASSES.items():
        configs = [{}, {"beta_schedule": "squaredcos_cap_v2"}]
        if "solver" in scheduler or scheduler == "unipc":
            configs.append({"use_karras_sigmas": True})
        for config, timesteps, dtype in itertools.product(configs, ([999, 0], [500, 61], [250]), DTYPES):
            made = cls(**config)
            made.set_timesteps(20)
            t, to = torch.tensor(timesteps), DTYPES[dtype]
            if "solver" in scheduler or scheduler == "unipc":
                # Some of the steps' own, one that occurs twice, one that no step has.
                t = made.timesteps[: len(t)] if timesteps[0] == 999 else t
                t = made.timesteps[-len(t) :] if timesteps[0] == 250 else t
            case = {"scheduler": scheduler, "config": json.dumps(config), "timesteps": t.tolist(), "dtype": dtype}
            case["row"] = len(tensors)
            tensors.append(made.add_noise(x.to(to), eps.to(to), t).float().flatten())
            if hasattr(made, "get_velocity"):
                case["velocity"] = len(tensors)
                tensors.append(made.get_velocity(x.to(to), eps.to(to), t).float().flatten())
            out.append(case)
    return out


def write(name, cases, noise_cases, defaults, noise_rows):
    """One case per line."""
    lines = ",\n".join(json.dumps(c) for c in cases.cases)
    noise_lines = ",\n".join(json.dumps(c) for c in noise_cases)
    text = f'{{"cases": [\n{lines}\n],\n"noised": [\n{noise_lines}\n],\n"defaults": {json.dumps(defaults, indent=1)}}}\n'
    (FIXTURES / f"{name}.json").write_text(text)
    tensors = {"samples": cases.tensor()}
    if noise_rows:
        tensors["noised"] = torch.stack(noise_rows)
    save_file(tensors, FIXTURES / f"{name}.safetensors")
    for suffix in ("json", "safetensors"):
        print(name, suffix, (FIXTURES / f"{name}.{suffix}").stat().st_size, "bytes")


if __name__ == "__main__":
    cases, rows = committed(), []
    noise_cases = noised(rows)
    defaults = {}
    for name, cls in CLASSES.items():
        defaults[name] = json.loads(cls().to_json_string())
        defaults[name].pop("lambda_min_clipped", None)
    write("schedulers", cases, noise_cases, defaults, rows)
    refused = [c for c in cases.cases if "refused" in c]
    print(len(cases.cases), "loops,", len(refused), "refused:")
    for c in refused:
        if '"prediction_type": "sample"' not in c["config"]:
            print("  ", c["scheduler"], c["config"][:120], c["steps"], c["refused"])
    large = [c for c in cases.cases if "row" in c and cases.samples[c["row"]].abs().max() > 10]
    for c in large:
        print("  large:", c["scheduler"], c["config"][:100], c["steps"], cases.samples[c["row"]].abs().max().item())
