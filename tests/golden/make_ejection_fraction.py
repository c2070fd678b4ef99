"""Left-ventricular volumes and ejection fraction in NumPy, on drawn hearts of patients with four masks each.

The pieces and the distances are SciPy's. The volumes follow Simpson's biplane method as src/measure/ejection_fraction
documents it, written without that code. `ef_own_heights` has a disc height for each phase: the known-wrong variant.

With a manifest folder as argument, the script prints how its reference masks agree with its recorded EF.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy import ndimage

from common import FIXTURES, number, write_json

DISCS = 20
VIEWS = ("2CH", "4CH")
PHASES = ("ED", "ES")


def heart(rng, height, width, scale):
    """A ventricle as a turned half ellipse in a wall, an atrium below it, ragged edges, and stray pixels."""
    y, x = np.mgrid[:height, :width].astype(float)
    angle = rng.uniform(-0.45, 0.45)
    base_x, base_y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.6, 0.68)
    # Along the axis towards the apex, and across it.
    along = (x - base_x) * np.sin(angle) - (y - base_y) * np.cos(angle)
    across = (x - base_x) * np.cos(angle) + (y - base_y) * np.sin(angle)
    long, wide = height * rng.uniform(0.42, 0.5) * (0.7 + 0.3 * scale), width * rng.uniform(0.14, 0.2) * scale
    ragged = 1 + rng.uniform(-0.06, 0.06, (height, width))
    mask = np.zeros((height, width), np.uint8)
    wall = 0.05 * width
    mask[(across / (wide + wall)) ** 2 + (along / (long + wall)) ** 2 < 1] = 2
    mask[(across / (wide * 1.1)) ** 2 + ((along + 0.14 * height) / (0.15 * height)) ** 2 < ragged] = 3
    mask[((across / wide) ** 2 + (along / long) ** 2 < ragged) & (along >= 0)] = 1
    mask[rng.integers(0, height, 2), rng.integers(0, 3, 2)] = 1
    mask[rng.integers(0, height, 2), rng.integers(width - 3, width, 2)] = 3
    return mask


def largest(mask):
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 0:
        return None
    return labels == 1 + np.argmax(ndimage.sum_labels(mask, labels, range(1, count + 1)))


def discs(mask, spacing):
    """Diameters of the 20 discs and the axis's length, or why there are none."""
    ventricle, atrium = largest(mask == 1), largest(mask == 3)
    if ventricle is None:
        return "ventricle"
    if atrium is None:
        return "atrium"
    size = np.array(spacing)
    to_atrium = ndimage.distance_transform_cdt(~atrium, metric="chessboard")
    points = np.argwhere(ventricle)[:, ::-1] * size  # (x, y)
    near = to_atrium[ventricle]
    base = points[near == near.min()].mean(0)
    from_base = points - base
    apex = from_base[np.argmax((from_base ** 2).sum(1))]
    length = np.linalg.norm(apex)
    if length == 0:
        return "volume"
    unit = apex / length
    middle = from_base @ unit / length * DISCS
    half = (np.abs(unit) * size).sum() / length * DISCS / 2
    edges = np.arange(DISCS + 1.0)
    edges[0], edges[-1] = -np.inf, np.inf
    low = np.maximum((middle - half)[:, None], edges[:-1])
    high = np.minimum((middle + half)[:, None], edges[1:])
    areas = np.clip(high - low, 0, None).sum(0) / (2 * half) * size.prod()
    assert abs(areas.sum() - ventricle.sum() * size.prod()) < 1e-9 * areas.sum()
    return areas / (length / DISCS), length


def volumes(found, one_height=True):
    """End-diastolic and end-systolic, in ml where the spacing is in mm."""
    lengths = {key: found[key][1] for key in found}
    result = []
    for phase in PHASES:
        both = [found[view, phase][0] for view in VIEWS]
        of_phase = [lengths[view, phase] for view in VIEWS]
        height = max(lengths.values() if one_height else of_phase) / DISCS
        result.append(np.pi / 4 * (both[0] * both[1]).sum() * height / 1000)
    return result


rng = np.random.default_rng(20240607)
sizes, spacings = [(60, 52), (48, 64), (56, 56)], [(1.0, 1.0), (0.308, 0.154), (0.62, 0.62)]
tensors, patients = {}, []
for p in range(9):
    height, width = sizes[p % 3]
    spacing = spacings[p // 3]
    masks, found = {}, {}
    for view in VIEWS:
        for phase in PHASES:
            scale = 1.0 if phase == "ED" else rng.uniform(0.55, 0.9)
            mask = heart(rng, height, width, scale)
            if p == 6 and (view, phase) == ("4CH", "ES"):  # no atrium
                mask[mask == 3] = 0
            if p == 7 and phase == "ED":  # the atrium does not touch
                mask = np.where((mask == 3) & (ndimage.binary_dilation(mask == 1, np.ones((3, 3)), 4)), 0, mask)
            masks[f"{view}_{phase}"] = mask.astype(np.uint8)
            found[view, phase] = discs(mask, spacing)
    tensors |= {f"{p}_{name}": mask for name, mask in masks.items()}
    failed = [value for value in found.values() if isinstance(value, str)]
    row = {"width": width, "spacing": spacing}
    if failed:
        row["undefined"] = failed[0]
    else:
        diastole, systole = volumes(found)
        own = volumes(found, one_height=False)
        row |= {
            "edv": diastole, "esv": systole, "ef": 100 * (diastole - systole) / diastole,
            "ef_own_heights": 100 * (own[0] - own[1]) / own[0],
            "lengths": [number(found[view, phase][1]) for view in VIEWS for phase in PHASES],
            "diameters": [found[view, phase][0].tolist() for view in VIEWS for phase in PHASES],
        }
    patients.append(row)

save_file(tensors, FIXTURES / "ejection_fraction.safetensors")
write_json("ejection_fraction.json", patients)

if len(sys.argv) > 1:
    folder, rows, pairs = Path(sys.argv[1]), {}, []
    for row in csv.DictReader((folder / "manifest.csv").open()):
        rows.setdefault(row["patient"], []).append(row)
    for of_patient in rows.values():
        found = {(r["view"], r["phase"]): discs(np.array(Image.open(folder / r["mask"])), (1.0, 1.0)) for r in of_patient}
        if len(found) == 4 and not any(isinstance(value, str) for value in found.values()):
            diastole, systole = volumes(found)
            pairs.append((100 * (diastole - systole) / diastole, float(of_patient[0]["ef"])))
    ef, recorded = np.array(pairs).T
    error = ef - recorded
    print(len(pairs), "patients, r", np.corrcoef(ef, recorded)[0, 1], "bias", error.mean(),
          "limits", 1.96 * error.std(ddof=1), "mean absolute error", np.abs(error).mean())
