"""Writes aggregate.json: NumPy's own means, deviations, percentiles and a bootstrap over patients; SciPy's
signed-rank test and percentile bootstrap; statsmodels' Holm, two one-sided tests and power.

python tests/golden/make_aggregate.py   (numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0)
"""

import json
import pathlib
import warnings

import numpy as np
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

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


def signed_rank(name, d):
    """One case; nan is written as null."""
    d = np.asarray(d, float)
    number = lambda v: None if np.isnan(v) else float(v)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        result = stats.wilcoxon(d)
        pratt = stats.wilcoxon(d, zero_method="pratt").pvalue
        corrected = stats.wilcoxon(d, correction=True, method="asymptotic").pvalue
        ranks = stats.rankdata(np.abs(d[d != 0]))
        signed = (ranks * np.sign(d[d != 0])).sum() / ranks.sum() if len(ranks) else np.nan
        sd = d.std(ddof=1) if len(d) > 1 else np.nan
    return {
        "name": name,
        "differences": d.tolist(),
        "statistic": float(result.statistic),
        "p": number(result.pvalue),
        "pratt": number(pratt),
        "corrected": number(corrected),
        "rank_biserial": number(signed),
        "dz": number(d.mean() / sd if sd > 0 else np.nan),
    }


rng = np.random.default_rng(7)  # its own, so that the cases above stay as they are
tests = []
for size in (1, 5, 6, 10, 13, 14, 49, 50, 51, 60):
    plain = rng.normal(0.3, 1, size).round(9)
    tied = rng.integers(1, 6, size) * rng.choice([-0.25, 0.25], size, p=[0.35, 0.65])
    zeros = np.where(rng.random(size) < 0.3, 0, plain)
    zeros[0] = 0
    both = np.where(rng.random(size) < 0.3, 0, tied)
    for name, d in (("plain", plain), ("ties", tied), ("zeros", zeros), ("ties and zeros", both)):
        if size > 1 or name == "plain":  # SciPy permutes no single difference
            tests.append(signed_rank(f"{size}, {name}", d))
tests.append(signed_rank("20, one side", np.arange(1, 21) / 100))
tests.append(signed_rank("10, all zero", np.zeros(10)))
tests.append(signed_rank("20, all zero", np.zeros(20)))
tests.append(signed_rank("30, accuracies", rng.integers(-2, 4, 30) / 4))

holm = []
for size in (1, 2, 5, 12):
    p = rng.beta(0.5, 4, size).round(6)
    holm.append({"p": p.tolist(), "holm": multipletests(p, method="holm")[1].tolist()})
p = [0.01, 0.04, 0.01, 0.9, 0.6]  # ties, and a product above 1
holm.append({"p": p, "holm": multipletests(p, method="holm")[1].tolist()})

paired_bootstrap = []
for size in (2, 12):
    d = rng.normal(0.01, 0.02, size).round(9)
    # SciPy draws all resamples at once from the generator that it is given.
    resamples = np.random.default_rng(5).integers(0, size, (60, size))
    interval = stats.bootstrap((d,), np.mean, n_resamples=60, method="percentile",
                               rng=np.random.default_rng(5)).confidence_interval
    assert np.allclose(interval, np.percentile(d[resamples].mean(1), [2.5, 97.5]), rtol=0, atol=1e-15)
    paired_bootstrap.append({
        "differences": d.tolist(),
        "resamples": resamples.tolist(),
        "low": float(interval.low),
        "high": float(interval.high),
    })

rng = np.random.default_rng(11)
agreement = []
for size in (3, 8, 40):
    reference = rng.normal(50, 12, size).round(6)
    value = (reference + rng.normal(1, 4, size)).round(6)

    def figures(v, r):
        d = v - r
        half = 1.96 * d.std(ddof=1)
        return [np.corrcoef(v, r)[0, 1], d.mean(), d.mean() - half, d.mean() + half, np.abs(d).mean()]

    # No draw of one patient only: NumPy warns where nothing varies.
    draws = [draw for draw in rng.integers(0, size, (50, size)) if len(set(draw.tolist())) > 1]
    resampled = np.array([figures(value[draw], reference[draw]) for draw in draws])
    d = value - reference
    agreement.append({
        "value": value.tolist(),
        "reference": reference.tolist(),
        "figures": [float(v) for v in figures(value, reference)],
        "lower_of_population": float(d.mean() - 1.96 * d.std()),
        "resamples": [draw.tolist() for draw in draws],
        "intervals": np.percentile(resampled, [2.5, 97.5], axis=0).T.tolist(),
    })

rng = np.random.default_rng(13)
equivalence = []
for size, shift, spread, margin in ((2, 0.001, 0.01, 0.02), (5, 0.0, 0.01, 0.01), (12, 0.004, 0.02, 0.01),
                                    (40, 0.002, 0.015, 0.01), (50, -0.3, 4, 1), (120, 0.05, 0.2, 0.02)):
    d = rng.normal(shift, spread, size).round(9)
    p, lower, upper = ttost_paired(d, np.zeros(size), -margin, margin)
    sd = d.std(ddof=1)
    interval = stats.t.interval(0.9, size - 1, d.mean(), sd / np.sqrt(size))
    # The chance that both one-sided tests reject where the true difference is 0, over the distribution of the observed
    # standard deviation.
    shift, critical = margin / sd * size**0.5, stats.t.isf(0.05, size - 1)
    spread = stats.chi(size - 1, scale=(size - 1) ** -0.5)
    both = integrate.quad(lambda s: spread.pdf(s) * (2 * stats.norm.cdf(shift - critical * s) - 1),
                          max(0, 1 - 12 / (size - 1) ** 0.5), min(shift / critical, 1 + 12 / (size - 1) ** 0.5),
                          epsabs=1e-12, epsrel=1e-12, limit=500)[0]
    equivalence.append({
        "differences": d.tolist(),
        "margin": margin,
        "p": float(p),
        "p_lower": float(lower[1]),
        "p_upper": float(upper[1]),
        "interval": [float(v) for v in interval],
        # Of the two-sided paired t-test, at 0.05, to find a difference as large as the margin.
        "power": float(TTestPower().power(margin / sd, size, 0.05)),
        "power_of_equivalence": both,
        "normal_p": float(max(stats.norm.sf((d.mean() + margin) / sd * size**0.5),
                              stats.norm.cdf((d.mean() - margin) / sd * size**0.5))),
    })

fixture = json.dumps({
    "quantiles": quantiles,
    "samples": samples,
    "bootstrap": {
        "patients": [p.tolist() for p in patients],
        "low": low,
        "high": high,
        "over_images_width": over_images[1] - over_images[0],
    },
    "wilcoxon": tests,
    "holm": holm,
    "paired_bootstrap": paired_bootstrap,
    "agreement": agreement,
    "equivalence": equivalence,
}, indent=1)
pathlib.Path(__file__).with_name("aggregate.json").write_text(fixture + "\n")
