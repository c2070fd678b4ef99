"""Numbers that Python and Rust make alike (see weights.rs), and what every script needs."""

import json
import math
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"


def uniform(key: str, count: int) -> np.ndarray:
    """`count` float64 values in [0, 1), multiples of 2^-24: SplitMix64 from the FNV-1a hash of `key`."""
    seed = 0xCBF29CE484222325
    for byte in key.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        x = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float64) / 2**24


def picture(key: str, height: int, width: int) -> np.ndarray:
    """uint8 noise: the hardest picture to sample rightly."""
    return np.floor(uniform(key, height * width) * 256).astype(np.uint8).reshape(height, width)


def signal(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """float32 in [-1, 1)."""
    values = uniform(key, math.prod(shape)) * 2 - 1
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def fill_parameters(module: torch.nn.Module, key: str) -> None:
    """`fill` for a module that has the same parameter under several names: the first one counts."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values_of(f"{key}/{name}", name, parameter))


def values_of(key: str, name: str, tensor: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """What `fill` gives a parameter of this name."""
    u = uniform(key, tensor.numel())
    if tensor.ndim > 1:
        # He's uniform bound, by the second and later dimensions.
        values = (u * 2 - 1) * math.sqrt(6 / (tensor.numel() // tensor.shape[0])) * gain
    elif name.endswith("running_mean"):
        values = (u * 2 - 1) * 0.25
    elif name.endswith("running_var"):
        values = u + 0.5
    elif name.endswith("weight"):
        values = u * 0.5 + 0.25
    else:
        values = (u * 2 - 1) * 0.25
    return torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape)


def fill(module: torch.nn.Module, key: str, gain: float = 1.0) -> None:
    """Gives every parameter and running statistic values that depend on its name alone. `gain` of weights
    of two dimensions and more: in a deep network the norms' scales below 1 leave nothing of the input."""
    state = module.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        state[name] = values_of(f"{key}/{name}", name, tensor, gain)
    module.load_state_dict(state)


def write_json(name: str, value) -> None:
    FIXTURES.mkdir(exist_ok=True)
    (FIXTURES / name).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    print(name, (FIXTURES / name).stat().st_size, "bytes")


def number(value) -> float | None:
    """JSON knows no NaN: null."""
    value = float(value)
    return None if math.isnan(value) else value
