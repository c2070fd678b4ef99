"""Makes the expected pictures of tests/data_resize.rs with torchvision, from synthetic pictures.

    pip install torch==2.13.0 torchvision==0.28.0 pillow==13.0.0
    python tests/golden/resize.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "resize"
SIZES = [(32, 32), (48, 40), (96, 96), (131, 33)]  # width, height


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    height, width = 53, 71
    y, x = np.mgrid[:height, :width]
    image = 110 + 70 * np.sin(x / 5) * np.cos(y / 7) + 35 * rng.standard_normal((height, width))
    image[:, 60:] = 0
    image = image.round().clip(0, 255).astype(np.uint8)
    mask = ((x // 9 + y // 7 + rng.integers(0, 2, (height, width))) % 4).astype(np.uint8)
    Image.fromarray(image).save(OUT / "image.png")
    Image.fromarray(mask).save(OUT / "mask.png")
    for w, h in SIZES:
        as_float = torch.from_numpy(image)[None].float()
        # In float: the kernel for bytes works in fixed point and differs by a grey level.
        bilinear = resize(as_float, [h, w], InterpolationMode.BILINEAR, antialias=True)
        nearest = resize(torch.from_numpy(mask)[None], [h, w], InterpolationMode.NEAREST)
        Image.fromarray(bilinear[0].round().clamp(0, 255).byte().numpy()).save(OUT / f"image_{w}x{h}.png")
        Image.fromarray(nearest[0].numpy()).save(OUT / f"mask_{w}x{h}.png")


if __name__ == "__main__":
    main()
