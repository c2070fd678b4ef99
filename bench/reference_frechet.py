#!/usr/bin/env python3
"""The yardstick for the Frechet distance: pytorch-fid's, from features: covariances by NumPy, and the matrix
root of their product by SciPy. Prints one JSON document.

    python bench/reference_frechet.py --features FILE --write     writes the features and ends
    python bench/reference_frechet.py --features FILE             times

The features are made up: skewed and not below 0, with a falling spectrum, as those of Inception-v3 are.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.numpy import load_file, save_file


def write(file, n, d):
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((200, d)) * np.logspace(0, -1.5, 200)[:, None]

    def features(shift):
        x = 0.3 * rng.standard_normal((n, 200)) @ directions + 0.05 * rng.standard_normal((n, d))
        return np.maximum(x + shift * rng.standard_normal(d), 0).astype(np.float32)

    save_file({"real": features(0), "synthetic": features(0.1)}, file)


def distance(real, synthetic):
    both = [(x.mean(0, dtype=np.float64), np.cov(x, rowvar=False)) for x in (real, synthetic)]
    return float(calculate_frechet_distance(*both[0], *both[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--images", type=int, default=1600, help="of each set, with --write")
    parser.add_argument("--width", type=int, default=2048, help="with --write")
    parser.add_argument("--runs", type=int, default=3, help="the median counts")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.features, arguments.images, arguments.width)
        return
    features = load_file(arguments.features)
    seconds = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        value = distance(features["real"], features["synthetic"])
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "task": "frechet",
        "images": len(features["real"]) + len(features["synthetic"]),
        "d": features["real"].shape[1],
        "value": value,
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "threads": torch.get_num_threads(),
    }))


if __name__ == "__main__":
    main()
