"""Writes aggregate.json: NumPy's own means, deviations, percentiles and a bootstrap over patients.

python tests/golden/make_aggregate.py > tests/golden/aggregate.json   (numpy 2)
"""

import json

import numpy as np

rng = np.random.default_rng(20240521)
quantiles = [0.0, 0.025, 0.1, 0.25, 0.5, 0.75, 0.975, 1.0]
samples = []
for size in (2, 3, 7, 50, 101):
    values = rng.beta(18, 2, size).round(6)
    if size > 3:
        values[rng.choice(size, size // 7, replace=False)] = np.nan
    samples.append({
        "values": [None if np.isnan(v) else v for v in values],
        "nanmean": np.nanmean(values),
        "nanstd": np.nanstd(values, ddof=1),
        "undefined": int(np.isnan(values).sum()),
        "percentiles": np.nanpercentile(values, 100 * np.array(quantiles)).tolist(),
    })

# 40 patients with one to four images each; images of one patient are alike.
patients = []
for _ in range(40):
    level = rng.normal(0.88, 0.05)
    patients.append((level + rng.normal(0, 0.02, rng.integers(1, 5))).round(6))
sums = np.array([p.sum() for p in patients])
counts = np.array([len(p) for p in patients])
draws = rng.integers(0, len(patients), (200_000, len(patients)))
low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])
images = np.concatenate(patients)
over_images = np.percentile(images[rng.integers(0, len(images), (20_000, len(images)))].mean(1), [2.5, 97.5])
print(json.dumps({
    "quantiles": quantiles,
    "samples": samples,
    "bootstrap": {
        "patients": [p.tolist() for p in patients],
        "low": low,
        "high": high,
        "over_images_width": over_images[1] - over_images[0],
    },
}, indent=1))
