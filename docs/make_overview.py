#!/usr/bin/env python3
"""Draws docs/overview.svg, the picture at the head of README.md, from the data and figures of two reports.

    python3 docs/make_overview.py reports/quickstart reports/camus-segmentation-cpu

The pictures come from the first, which has to be a phantom's: pictures of patients never go into this repository. The
forest plot comes from the second.
"""

import json
import re
import sys
from pathlib import Path

TILE, GAP, CAPTION, WIDTH = 168, 14, 22, 920
# Background, endocardium, myocardium, atrium.
COLOURS = ["#101418", "#0072B2", "#E69F00", "#009E73"]


def picture(x, y, caption, png, is_mask=False):
    shown = ' filter="url(#classes)"' if is_mask else ""
    return (
        f'<text x="{x}" y="{y + 15}" font-size="14">{caption}</text>\n'
        f'<image x="{x}" y="{y + CAPTION}" width="{TILE}" height="{TILE}" preserveAspectRatio="none"'
        f' image-rendering="{"pixelated" if is_mask else "auto"}"{shown} href="data:image/png;base64,{png}"/>\n'
    )


def classes_filter():
    """Class indices 0 to 3 become colours: first grey 0, 85, 170, 255, then a table per channel."""
    channels = zip(*[[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    tables = "".join(
        f'<feFunc{name} type="discrete" tableValues="{" ".join(f"{value:.3f}" for value in values)}"/>'
        for name, values in zip("RGB", channels)
    )
    slopes = "".join(f'<feFunc{name} type="linear" slope="85"/>' for name in "RGB")
    return (
        '<filter id="classes" color-interpolation-filters="sRGB">'
        f"<feComponentTransfer>{slopes}</feComponentTransfer><feComponentTransfer>{tables}</feComponentTransfer>"
        "</filter>\n"
    )


def forest(report, x, y, width):
    """The report's own figure, scaled to a width."""
    text = (report / "figures/segmentation_dice_differences_column.svg").read_text()
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    height = width * float(box.group(2)) / float(box.group(1))
    inner = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    head = f'<svg x="{x}" y="{y}" width="{width}" height="{height:.1f}" viewBox="{box.group(0)[9:-1]}">'
    return f"{head}{inner}</svg>\n", height


def main():
    report = Path(sys.argv[1])
    data = json.loads((report / "report.json").read_text())
    if not data["meta"]["is_phantom"]:
        sys.exit(f"error: {report} is not a phantom's report\n  help: run experiments/quickstart.toml first")
    panel = data["panel"][0]
    sample = next(
        synthetic
        for generator in data["generators"]
        if generator["mode"] == "text+segmentation"
        for row in generator["samples"]
        for synthetic in row["synthetic"]
        if synthetic["control"]
    )
    step_x, step_y = TILE + GAP, TILE + CAPTION + GAP
    tiles = [
        picture(0, 0, "Phantom image", panel["image"]),
        picture(step_x, 0, "Segmentation by the network", panel["prediction"], True),
        picture(0, step_y, "Mask of another phantom", sample["control"], True),
        picture(step_x, step_y, "Synthetic image of that mask", sample["image"]),
    ]
    left = 2 * step_x + 2 * GAP
    plot, plot_height = forest(Path(sys.argv[2]), left, CAPTION, WIDTH - left)
    height = max(2 * step_y - GAP, CAPTION + plot_height)
    Path("docs/overview.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}"'
        f' viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" fill="#222222">\n'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>\n{classes_filter()}{"".join(tiles)}{plot}</svg>\n'
    )


if __name__ == "__main__":
    main()
