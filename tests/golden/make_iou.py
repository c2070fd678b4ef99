"""Intersection over union of MONAI, on the masks that make_measures.py draws (run that first where they change) and
on small ones."""

import numpy as np
import torch
from monai.metrics import compute_iou
from safetensors.numpy import load_file

from common import FIXTURES, number, uniform, write_json


def channels(mask):
    """endo, myo, epi, la."""
    parts = [mask == 1, mask == 2, (mask == 1) | (mask == 2), mask == 3]
    return torch.from_numpy(np.stack(parts)[None].astype(np.float32))


def iou(truth, prediction):
    found = compute_iou(channels(prediction), channels(truth), include_background=True, ignore_empty=True)
    return [number(value) for value in found[0]]


def small(key, height, width, classes, without=((), ())):
    """Noise of the classes 0..classes; `without`: those that the truth and the prediction lack."""
    truth, prediction = (
        np.floor(uniform(f"{key}/{name}", height * width) * classes).astype(np.uint8).reshape(height, width)
        for name in ("truth", "prediction"))
    for mask, absent in zip((truth, prediction), without):
        mask[np.isin(mask, absent)] = 0
    return {"truth": truth.ravel().tolist(), "prediction": prediction.ravel().tolist(), "iou": iou(truth, prediction)}


hearts = load_file(FIXTURES / "masks.safetensors")
count = sum(name.startswith("truth") for name in hearts)
write_json("iou.json", {
    # By their numbers in masks.safetensors.
    "hearts": [iou(hearts[f"truth{i}"], hearts[f"prediction{i}"]) for i in range(count)],
    "small": [
        small("all", 9, 7, 4),
        small("few", 4, 5, 3),
        small("no prediction", 6, 6, 4, ((), (1, 2, 3))),
        small("no truth", 6, 6, 4, ((1, 2, 3), ())),
        small("neither", 5, 5, 4, ((3,), (3,))),
        small("ring only", 5, 6, 4, ((1,), (2,))),
        small("one pixel", 1, 1, 4),
    ],
})
