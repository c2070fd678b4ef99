"""Measures between sets of features that no release on PyPI has: the Vendi score and the share of authentic images
of dgm-eval, MIND of torch-fidelity, and the directions that PyTorch's generator draws for it.

Both come from checkouts, at the commits below:

    python make_quality.py --dgm-eval DIR --torch-fidelity DIR

The features themselves are not stored (see common.py)."""

import argparse
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from common import signal, write_json

# Of github.com/layer6ai-labs/dgm-eval and github.com/toshas/torch-fidelity.
DGM_EVAL = "74c79f7527fbf38fdccfbac51f25d759bc02ab07"
TORCH_FIDELITY = "5e211a950a7b45206bd4976813ffd6aed6cf4ccc"

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dgm-eval", type=Path, metavar="DIR", help=f"a checkout of dgm-eval, {DGM_EVAL[:7]}")
parser.add_argument("--torch-fidelity", type=Path, metavar="DIR", help=f"of torch-fidelity, {TORCH_FIDELITY[:7]}")
arguments = parser.parse_args()
if arguments.dgm_eval is None or arguments.torch_fidelity is None:
    # `just golden` runs every script without arguments.
    print("make_quality.py: skipped, quality.json stays as it is: give --dgm-eval DIR and --torch-fidelity DIR")
    sys.exit(0)


def load(checkout: Path, commit: str, file: str, name: str):
    """The module in `file`, after a check that it is that of `commit`."""
    git = ["git", "-C", str(checkout)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    if head != commit:
        sys.exit(f"{checkout} is at {head}: check out {commit}")
    if subprocess.run([*git, "diff", "--quiet", "HEAD", "--", file]).returncode != 0:
        sys.exit(f"{checkout / file} was changed: restore it")
    # By its path: dgm-eval's package imports far more than is needed here.
    spec = importlib.util.spec_from_file_location(name, checkout / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The checkout's package, not PyPI's.
sys.path.insert(0, str(arguments.torch_fidelity))
metric_mind = load(arguments.torch_fidelity, TORCH_FIDELITY, "torch_fidelity/metric_mind.py", "metric_mind")
assert Path(sys.modules["torch_fidelity"].__file__).is_relative_to(arguments.torch_fidelity.resolve())
compute_vendi_score = load(arguments.dgm_eval, DGM_EVAL, "dgm_eval/metrics/vendi.py", "vendi").compute_vendi_score
compute_authpct = load(arguments.dgm_eval, DGM_EVAL, "dgm_eval/metrics/authpct.py", "authpct").compute_authpct


def features(key: str, n: int, d: int, shift: float = 0.0, copies: int = 0) -> np.ndarray:
    """float64 (n, d), skewed, with a falling spectrum: column j is u |u| / (1 + j/4) + shift. The last `copies`
    rows repeat the first ones."""
    u = signal(key, (n, d)).numpy().astype(np.float64)
    x = u * np.abs(u) / (1 + np.arange(d) / 4) + shift
    if copies:
        x[-copies:] = x[:copies]
    return x


# --- Vendi score ------------------------------------------------------------------------------


def vendi(key, n, d, shift=0.0, copies=0):
    x = features(key, n, d, shift, copies)
    return {
        "key": key, "n": n, "d": d, "shift": shift, "copies": copies,
        "value": float(compute_vendi_score(x)),
        # Other orders and kernels of theirs, and rows of any length.
        "order_2": float(compute_vendi_score(x, q=2)),
        "polynomial": float(compute_vendi_score(x, kernel="polynomial")),
        "unnormalised": float(compute_vendi_score(x, normalize=False)),
    }


# --- authenticity -----------------------------------------------------------------------------


def authenticity(key, n_real, n_synthetic, d, shift=0.0, scale=1.0, copies=0, from_real=0):
    """`copies` rows of the real set are there twice; the last `from_real` synthetic rows are copies of real ones."""
    real = features(f"{key}/real", n_real, d, 0.0, copies)
    synthetic = scale * features(f"{key}/synthetic", n_synthetic, d, shift)
    if from_real:
        synthetic[-from_real:] = real[:from_real]
    distances = np.sqrt(((synthetic[:, None] - real[None]) ** 2).sum(2))
    own = np.sqrt(((synthetic[:, None] - synthetic[None]) ** 2).sum(2))
    np.fill_diagonal(own, np.inf)
    return {
        "key": key, "n_real": n_real, "n_synthetic": n_synthetic, "d": d,
        "shift": shift, "scale": scale, "copies": copies, "from_real": from_real,
        "percent": compute_authpct(real, synthetic),
        # What must not pass: as far from the real image as from its own nearest synthetic one.
        "by_synthetic": 100 * float((own.min(1) < distances.min(1)).mean()),
    }


# --- MIND -------------------------------------------------------------------------------------


def mind(key, n_real, n_synthetic, d, shift=0.0, scale=1.0, copies=0, **over):
    real = features(f"{key}/real", n_real, d, 0.0, copies)
    synthetic = scale * features(f"{key}/synthetic", n_synthetic, d, shift, copies)
    settings = {"cuda": False, "verbose": False, **over}

    def of(a, b, **other):
        a, b = torch.from_numpy(a), torch.from_numpy(b)
        return metric_mind.mind_features_to_metric(a, b, **{**settings, **other})["monge_inception_distance"]

    return {
        "key": key, "n_real": n_real, "n_synthetic": n_synthetic, "d": d,
        "shift": shift, "scale": scale, "copies": copies,
        "directions": over.get("mind_num_projections", 1000), "seed": over.get("rng_seed", 2020),
        "value": of(real, synthetic),
        # What must not pass: another seed, and the first rows of the larger set.
        "other_seed": of(real, synthetic, rng_seed=over.get("rng_seed", 2020) + 1),
        "first_rows": of(real[:min(n_real, n_synthetic)], synthetic[:min(n_real, n_synthetic)]),
    }


def draws(seed, of, d, directions):
    """Of one generator, as MIND draws: a permutation, then standard normals."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    permutation = torch.randperm(of, generator=generator)
    normals = torch.randn(directions, d, generator=generator, dtype=torch.float32)
    return {"seed": seed, "permutation": permutation.tolist(), "normals": normals.flatten().tolist()}


torch.set_num_threads(1)
write_json("quality.json", {
    "vendi": [
        vendi("fewer than dimensions", 40, 64),
        vendi("as many as dimensions", 32, 32),
        vendi("more than dimensions", 300, 24),
        vendi("copies", 60, 48, copies=30),
        vendi("all alike", 50, 16, shift=2.0),
        vendi("one dimension", 9, 1),
        vendi("two", 2, 8),
    ],
    "authenticity": [
        authenticity("alike", 150, 130, 16),
        authenticity("shifted", 120, 200, 16, shift=0.1),
        authenticity("shrunk", 90, 60, 8, scale=0.5),
        authenticity("copies among the real", 24, 20, 4, copies=10),
        # Up to 25 rows their distances are by differences, so that a copy is at 0.
        authenticity("copies of the real", 25, 20, 6, from_real=8),
        authenticity("copies of copies", 25, 25, 6, copies=8, from_real=12),
        authenticity("two real", 2, 30, 3),
        authenticity("one synthetic", 30, 1, 3),
        authenticity("all authentic", 40, 30, 8, shift=3.0),
    ],
    "mind": [
        mind("alike", 200, 200, 64),
        mind("shifted", 150, 150, 48, shift=0.1),
        mind("more real", 180, 120, 32, shift=0.05),
        mind("more synthetic", 75, 200, 40, scale=1.3),
        mind("few directions", 100, 90, 20, scale=1.5, mind_num_projections=13, rng_seed=7),
        mind("another seed", 64, 64, 2048, scale=0.7, mind_num_projections=50, rng_seed=123456789),
        mind("copies", 80, 80, 24, scale=1.2, copies=40),
        mind("two of each", 2, 2, 16),
        mind("two against many", 2, 50, 16),
        mind("one dimension", 30, 20, 1, scale=2.0, mind_num_projections=40),
        mind("fewer than sixteen normals", 30, 30, 5, shift=0.2, mind_num_projections=3),
    ],
    "draws": [
        draws(2020, 37, 8, 4),
        draws(0, 1, 7, 11),
        draws(2**32 - 1, 50, 5, 3),
        draws(12345, 2, 3, 5),
        draws(99, 5, 17, 1),
        draws(3, 4, 1, 5),
    ],
})
