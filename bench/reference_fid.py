#!/usr/bin/env python3
"""The yardstick: Inception's features of a folder by pytorch-fid's own path on the CPU, as
`python -m pytorch_fid` takes it: batches of 50, as many workers as there are CPUs (8 at most).

All of it is timed: listing, the network's construction, reading, decoding, resizing, the network. Only
the weights are made up in place of the download. With two folders FID itself is timed as well. Prints one
JSON document.

    python bench/reference_fid.py --images DIR
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pytorch_fid.inception
import safetensors.torch
import torch
import torchvision
from memory import Peak
from pytorch_fid.fid_score import IMAGE_EXTENSIONS, calculate_frechet_distance, get_activations


def made_up():
    """Lets pytorch-fid's network start with weights of He's initialisation, without a download."""

    def filled(self, _state):
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")

    torchvision.models.Inception3.load_state_dict = filled
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images of one size")
    parser.add_argument("--write-weights", type=Path, help="write the made-up weights as safetensors, and end")
    parser.add_argument("--other", type=Path, help="a second folder; FID of the two is timed as well")
    parser.add_argument("--limit", type=int, help="take the first LIMIT images of each only")
    parser.add_argument("--batch", type=int, default=50, help="pytorch-fid's default")
    parser.add_argument("--workers", type=int, default=min(8, len(os.sched_getaffinity(0))))
    arguments = parser.parse_args()

    made_up()
    torch.manual_seed(0)
    if arguments.write_weights:
        state = pytorch_fid.inception.fid_inception_v3().state_dict()
        safetensors.torch.save_file({name: t.contiguous() for name, t in state.items()}, arguments.write_weights)
        return
    if not arguments.images:
        sys.exit("error: --images DIR is needed")
    with Peak(os.getpid()) as peak:
        start = time.perf_counter()
        network = pytorch_fid.inception.InceptionV3([3])
        activations, seconds, value = [], [], None
        for folder in filter(None, [arguments.images, arguments.other]):
            files = sorted(file for ending in IMAGE_EXTENSIONS for file in folder.glob(f"*.{ending}"))
            files = files[: arguments.limit]
            if not files:
                sys.exit(f"error: {folder} has no images")
            activations.append(get_activations(files, network, arguments.batch, 2048, "cpu", arguments.workers))
            seconds.append(time.perf_counter() - start)
        if len(activations) == 2:
            import numpy as np

            moments = [f(a) for a in activations for f in (lambda a: a.mean(0), lambda a: np.cov(a, rowvar=False))]
            try:
                value = calculate_frechet_distance(*moments)
            except ValueError as error:  # singular covariances: the time is spent all the same
                print(f"pytorch-fid has no value: {error}", file=sys.stderr)
            seconds.append(time.perf_counter() - start)
    result = {
        "task": "fid-features",
        "precision": "f32",
        "images": len(activations[0]),
        "features": activations[0].shape[1],
        "batch": arguments.batch,
        "workers": arguments.workers,
        "seconds": round(seconds[0], 3),
        "seconds_with_fid": round(seconds[-1], 3) if len(activations) == 2 else None,
        "value": value,
        "peak_rss_mb": peak.megabytes,
        "threads": torch.get_num_threads(),
        "version": f"torch {torch.__version__}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
