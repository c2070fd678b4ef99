"""Octave power of NumPy's FFT under a taper by SciPy's distance transform, on random sectors."""

import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

from common import FIXTURES, write_json


def echo(rng, size, sigma, tilt=0.0):
    """uint8: a fan of speckle, brighter towards the probe, with a black cavity in it."""
    y, x = np.mgrid[:size, :size] / size
    angle, depth = np.arctan2(x - 0.5, y + 0.02) - tilt, np.hypot(x - 0.5, y + 0.02)
    speckle = gaussian_filter(rng.standard_normal((size, size)), sigma)
    grey = (150 - 90 * depth) * np.exp(0.5 * speckle / speckle.std())
    grey[(abs(angle) > 0.7) | (depth > 0.95)] = 0
    grey[np.hypot(x - 0.5, y - 0.55) < 0.06] = 2
    return grey.round().clip(0, 255).astype(np.uint8)


def sector(real):
    # The cavity is enclosed, so it is filled; SciPy's default neighbours are the four beside a pixel.
    return binary_fill_holes((real > 5).mean(0) >= 0.9)


def power(images, mask, taper=True, mean="weighted", rings=np.rint, over="rings"):
    size = images.shape[1]
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]  # outside of the picture is outside
    window = np.sin(np.pi / 2 * np.minimum(depth / (size / 16), 1)) ** 2 if taper else mask.astype(float)
    x = images.astype(np.float64)
    if mean == "weighted":
        x -= ((x * window).sum((1, 2)) / window.sum())[:, None, None]
    elif mean == "sector":
        x -= x[:, mask].mean(1)[:, None, None]
    spectrum = (np.abs(np.fft.fft2(x * window)) ** 2).mean(0) / (window**2).sum()
    f = np.fft.fftfreq(size, 1 / size)
    ring = rings(np.hypot(f[:, None], f[None])).astype(int)
    radial = np.bincount(ring.ravel(), spectrum.ravel()) / np.bincount(ring.ravel())
    octaves = []
    for i in range(4):
        low, high = size / 2 ** (i + 2), size / 2 ** (i + 1)
        if over == "rings":
            k = np.arange(len(radial))
            octaves.append(radial[(k > low) & (k <= high)].mean())
        else:  # every coefficient counts alike: the high rings, which have more, weigh more
            octaves.append(spectrum[(ring > low) & (ring <= high)].mean())
    return octaves


WRONG = {
    "no taper": {"taper": False},
    "no mean taken away": {"mean": None},
    "unweighted mean": {"mean": "sector"},
    "rings by floor": {"rings": np.floor},
    "mean over coefficients": {"over": "coefficients"},
}

rng = np.random.default_rng(20240404)
tensors, cases = {}, []
for i, size in enumerate([64, 45]):  # even and odd
    # One real image in ten has another sector.
    real = np.stack([echo(rng, size, 0.8, tilt=0.3 if j == 4 else 0) for j in range(10)])
    synthetic = np.stack([echo(rng, size, 1.2) for _ in range(3)])
    mask = sector(real)
    tensors |= {f"real{i}": real, f"synthetic{i}": synthetic, f"sector{i}": mask.astype(np.uint8)}
    r, s = power(real, mask), power(synthetic, mask)
    wrong = {}
    for name, how in WRONG.items():
        other = power(real, mask, **how)
        # Each has to differ clearly, or the comparison would not see it.
        assert max(abs(a / b - 1) for a, b in zip(other, r)) > 1e-3, name
        wrong[name] = other
    cases.append({"size": size, "real": r, "synthetic": s, "wrong_real": wrong})
    print(size, np.divide(s, r).round(4), mask.mean().round(3))
FIXTURES.mkdir(exist_ok=True)
save_file(tensors, FIXTURES / "texture.safetensors")
write_json("texture.json", cases)
