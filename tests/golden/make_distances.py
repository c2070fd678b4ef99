"""Measures between sets of features: Frechet distance of pytorch-fid and torch-fidelity, KID of torch-fidelity
with NumPy's subsets, precision, recall, density and coverage of prdc; nearest rows by NumPy, Mann-Whitney U by
SciPy; statistics in NumPy's .npz. The features themselves are not stored (see common.py)."""

import warnings

import numpy as np
import torch
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.stats import mannwhitneyu
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_poly, kid_features_to_metric, mmd2

from common import FIXTURES, signal, uniform, write_json

warnings.filterwarnings("ignore")
FIXTURES.mkdir(exist_ok=True)


def features(key: str, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    """float64 (n, d), skewed, with a falling spectrum: column j is u |u| / (1 + j/4) + shift."""
    u = signal(key, (n, d)).numpy().astype(np.float64)
    return u * np.abs(u) / (1 + np.arange(d) / 4) + shift


# --- Frechet distance -------------------------------------------------------------------------

def statistics(x):
    return x.mean(0), np.cov(x, rowvar=False)


def frechet(key, n_real, n_synthetic, d, shift):
    real, synthetic = features(f"{key}/real", n_real, d), features(f"{key}/synthetic", n_synthetic, d, shift)
    theirs = [fid_features_to_statistics(torch.from_numpy(x)) for x in (real, synthetic)]
    return {
        "key": key, "n_real": n_real, "n_synthetic": n_synthetic, "d": d, "shift": shift,
        "pytorch_fid": float(calculate_frechet_distance(*statistics(real), *statistics(synthetic))),
        "torch_fidelity": fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"],
        # With covariances over n, as numpy.cov(bias=True).
        "over_n": float(calculate_frechet_distance(
            real.mean(0), np.cov(real, rowvar=False, bias=True),
            synthetic.mean(0), np.cov(synthetic, rowvar=False, bias=True))),
    }


# --- KID --------------------------------------------------------------------------------------

def kid(key, n_real, n_synthetic, d, subsets, size, seed):
    real, synthetic = features(f"{key}/real", n_real, d), features(f"{key}/synthetic", n_synthetic, d, 0.05)
    over = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    found = kid_features_to_metric(torch.from_numpy(real), torch.from_numpy(synthetic), **over)
    # The diagonal left in.
    rng, biased = np.random.RandomState(seed), []
    for _ in range(subsets):
        x, y = (f[rng.choice(len(f), size, replace=False)] for f in (real, synthetic))
        biased.append(mmd2(kernel_poly(x, x), kernel_poly(x, y), kernel_poly(y, y), mmd_est="biased"))
    return {
        "key": key, "n_real": n_real, "n_synthetic": n_synthetic, "d": d,
        "subsets": subsets, "subset_size": size, "seed": seed,
        "mean": found["kernel_inception_distance_mean"], "std": found["kernel_inception_distance_std"],
        "biased_mean": float(np.mean(biased)),
    }


def choices(seed, draws):
    rng = np.random.RandomState(seed)
    return {"seed": seed, "draws": [[n, size, rng.choice(n, size, replace=False).tolist()] for n, size in draws]}


# --- precision, recall, density, coverage -----------------------------------------------------

def prdc(key, n_real, n_synthetic, d, k, shift):
    real, synthetic = features(f"{key}/real", n_real, d), features(f"{key}/synthetic", n_synthetic, d, shift)
    found = compute_prdc(real, synthetic, nearest_k=k)
    return {"key": key, "n_real": n_real, "n_synthetic": n_synthetic, "d": d, "k": k, "shift": shift,
            **{name: float(value) for name, value in found.items()}}


# --- nearest rows and the rank test -----------------------------------------------------------

def nearest(key, m, n, d):
    queries, reference = features(f"{key}/queries", m, d), features(f"{key}/reference", n, d)
    distances = np.sqrt(((queries[:, None] - reference[None]) ** 2).sum(2))
    return {"key": key, "m": m, "n": n, "d": d,
            "indices": distances.argmin(1).tolist(), "distances": distances.min(1).tolist()}


def rank_test(key, n_first, n_second, shift, steps=None):
    first, second = uniform(f"{key}/first", n_first) + shift, uniform(f"{key}/second", n_second)
    if steps:  # ties
        first, second = np.floor(first * steps), np.floor(second * steps)
    less = mannwhitneyu(first, second, alternative="less", method="asymptotic")
    return {
        "key": key, "n_first": n_first, "n_second": n_second, "shift": shift, "steps": steps,
        "u": float(less.statistic), "p": float(less.pvalue),
        "without_continuity": float(
            mannwhitneyu(first, second, alternative="less", method="asymptotic", use_continuity=False).pvalue),
        "other_side": float(mannwhitneyu(first, second, alternative="greater", method="asymptotic").pvalue),
    }


write_json("distances.json", {
    "frechet": [
        frechet("full rank", 300, 200, 64, 0.1),
        frechet("singular", 50, 50, 64, 0.1),
        frechet("one singular", 400, 50, 64, 0.0),
        frechet("the other singular", 50, 400, 64, 0.0),
        frechet("far", 90, 120, 16, 3.0),
    ],
    "kid": [
        kid("subsets", 120, 90, 32, 20, 50, 2020),
        kid("few of many", 700, 600, 16, 5, 20, 7),
        kid("all of one", 60, 80, 32, 10, 60, 2020),
    ],
    "choices": [
        choices(2020, [(120, 20), (90, 20), (1, 1), (2, 2), (1025, 12)]),
        choices(0, [(700, 15), (16, 16)]),
        choices(2**32 - 1, [(33, 10)]),
    ],
    "prdc": [
        prdc("alike", 150, 130, 16, 5, 0.0),
        prdc("shifted", 150, 130, 16, 5, 0.15),
        prdc("apart", 60, 60, 8, 3, 0.6),
        prdc("most k", 20, 12, 8, 10, 0.1),
    ],
    "nearest": [nearest("wide", 40, 60, 50), nearest("narrow", 60, 30, 2)],
    "rank_tests": [
        rank_test("no difference", 40, 50, 0.0),
        rank_test("smaller", 60, 30, -0.2),
        rank_test("larger", 20, 30, 0.3),
        rank_test("ties", 45, 45, -0.1, 10),
        rank_test("many ties", 500, 400, -0.05, 4),
        rank_test("far apart", 300, 300, -2.0),
        rank_test("small", 2, 3, -0.5),
    ],
})

# As `pytorch_fid --save-stats` writes them, and as `numpy.savez` does.
mu, sigma = statistics(features("npz", 30, 8))
np.savez_compressed(FIXTURES / "statistics.npz", mu=mu, sigma=sigma)
np.savez(FIXTURES / "statistics_stored.npz", mu=mu, sigma=np.asfortranarray(sigma))
