"""Dice, HD, HD95 and ASSD of MONAI; classification figures of scikit-learn; Wilson's interval of
statsmodels."""

import math
import warnings

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from safetensors.numpy import save_file
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from common import FIXTURES, number, uniform, write_json

warnings.filterwarnings("ignore")


# --- masks ------------------------------------------------------------------------------------

def heart(rng, height, width, without=()):
    """Cavity in a wall, atrium below, in jittered and ragged ellipses; often cut by the border."""
    y, x = np.mgrid[:height, :width]

    def ellipse(cx, cy, rx, ry):
        ragged = 1 + rng.uniform(-0.15, 0.15, (height, width))
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < ragged

    cx, cy = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.3, 0.45)
    rx, ry = width * rng.uniform(0.12, 0.2), height * rng.uniform(0.2, 0.3)
    wall = min(height, width) * rng.uniform(0.05, 0.1)
    mask = np.zeros((height, width), np.uint8)
    mask[ellipse(cx, height * rng.uniform(0.75, 0.95), rx, ry * 0.6)] = 3
    mask[ellipse(cx, cy, rx + wall, ry + wall)] = 2
    mask[ellipse(cx, cy, rx, ry)] = 1
    for class_ in without:
        mask[mask == class_] = 0
    return mask


def measure(truth, prediction, spacing):
    def channels(mask):
        parts = [mask == 1, mask == 2, (mask == 1) | (mask == 2), mask == 3]
        return torch.from_numpy(np.stack(parts)[None].astype(np.float32))

    y, y_pred = channels(truth), channels(prediction)
    over = {"include_background": True, "spacing": list(spacing)}  # (y, x)
    dice = compute_dice(y_pred, y, include_background=True, ignore_empty=True)[0]
    hd = compute_hausdorff_distance(y_pred, y, **over)[0]
    hd95 = compute_hausdorff_distance(y_pred, y, percentile=95, **over)[0]
    assd = compute_average_surface_distance(y_pred, y, symmetric=True, **over)[0]
    rows = []
    for i, name in enumerate(["endo", "myo", "epi", "la"]):
        has_truth, has_prediction = bool(y[0, i].any()), bool(y_pred[0, i].any())
        row = {"structure": name, "dice": number(dice[i])}
        if has_truth and has_prediction:
            row |= {"hd": float(hd[i]), "hd95": float(hd95[i]), "assd": float(assd[i])}
        else:
            # MONAI says inf where one of the two lacks the structure, NaN where both do.
            both = not has_truth and not has_prediction
            assert all(math.isnan(v) if both else math.isinf(v) for v in (hd[i], assd[i])), (hd[i], assd[i])
            row |= {"missing": "both" if both else "truth" if has_prediction else "prediction"}
        rows.append(row)
    return rows


rng = np.random.default_rng(20240403)
cases, tensors = [], {}
sizes = [(64, 80), (48, 48), (57, 41)]
for i in range(16):
    height, width = sizes[i % 3]
    truth = heart(rng, height, width, without={13: (3,), 15: (3, 1)}.get(i, ()))
    prediction = heart(rng, height, width, without={12: (3,), 14: (1, 2, 3), 15: (3, 2)}.get(i, ()))
    if i in (3, 8):  # far islands: where the percentile of each direction matters
        prediction[: 2 + i // 3, : 3] = 1
        prediction[-2:, -2:] = 3
    if i == 5:
        prediction = truth.copy()
    spacing = [(1.0, 1.0), (0.154, 0.308), (0.7, 0.31)][i % 3 if i < 12 else 0]
    tensors[f"truth{i}"], tensors[f"prediction{i}"] = truth, prediction
    cases.append({"spacing_y": spacing[0], "spacing_x": spacing[1], "structures": measure(truth, prediction, spacing)})
FIXTURES.mkdir(exist_ok=True)
save_file(tensors, FIXTURES / "masks.safetensors")
write_json("masks.json", cases)


# --- classes ----------------------------------------------------------------------------------

def classify(key, n, classes, absent=(), never=(), coarse=False):
    truth = np.floor(uniform(f"{key}/truth", n) * classes).astype(int)
    for class_ in absent:
        truth[truth == class_] = 0
    scores = uniform(f"{key}/scores", n * classes).reshape(n, classes) + 0.6 * np.eye(classes)[truth]
    if coarse:  # ties
        scores = np.round(scores * 4 + 1)
    scores[:, list(never)] *= 0.01
    p = (scores / scores.sum(1, keepdims=True)).astype(np.float32).astype(np.float64)
    p = p / p.sum(1, keepdims=True)
    predicted = p.argmax(1)
    over = {"average": "macro", "zero_division": 0}
    if len(set(truth)) < classes:
        auc = float("nan")
    elif classes == 2:
        auc = metrics.roc_auc_score(truth, p[:, 1])
    else:
        auc = metrics.roc_auc_score(truth, p, multi_class="ovr", average="macro")
    return {
        "classes": classes,
        "truth": truth.tolist(),
        "probabilities": p.ravel().tolist(),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted, **over),
        "recall": metrics.recall_score(truth, predicted, **over),
        "f1": metrics.f1_score(truth, predicted, **over),
        "auc": number(auc),
        "confusion": metrics.confusion_matrix(truth, predicted, labels=range(classes)).tolist(),
    }


write_json(
    "classes.json",
    {
        "scores": [
            classify("two", 41, 2),
            classify("two, ties", 60, 2, coarse=True),
            classify("three", 50, 3),
            classify("four, ties", 77, 4, coarse=True),
            classify("never predicted", 30, 3, never=(1,)),
            classify("absent", 30, 3, absent=(2,)),
            classify("absent and never predicted", 30, 4, absent=(2,), never=(2,)),
            classify("one class", 9, 2, absent=(1,)),
        ],
        "wilson": [
            [k, n, *map(float, proportion_confint(k, n, alpha=0.05, method="wilson"))]
            for k, n in [(0, 1), (1, 1), (0, 40), (40, 40), (7, 10), (172, 200), (1999, 2000)]
        ],
    },
)
