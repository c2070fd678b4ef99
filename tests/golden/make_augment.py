"""Augmentation by torchvision's transforms.v2.functional on float tensors."""

import numpy as np
import torch
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import _get_inverse_affine_matrix
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional._geometry import _affine_grid

from common import FIXTURES, picture, write_json

IDENTITY = dict(
    angle=0.0, tx=0.0, ty=0.0, scale=1.0, shear_x=0.0, shear_y=0.0,
    brightness=1.0, contrast=1.0, gamma=1.0, flip=False, interpolation="bilinear",
)  # fmt: skip
ALL = dict(angle=-7.3, tx=4.0, ty=-3.0, scale=1.07, shear_x=6.1, shear_y=-8.4, brightness=1.21, contrast=0.78)
CASES = [
    dict(),
    dict(flip=True),
    dict(tx=5.0, ty=-7.0),
    dict(tx=0.073, ty=-0.041),  # the reference's tenth of a pixel
    dict(tx=0.073, ty=-0.041, interpolation="nearest"),
    dict(angle=10.0),
    dict(angle=33.0, interpolation="nearest"),
    dict(scale=0.9),
    dict(scale=1.1),
    dict(shear_x=10.0),
    dict(shear_y=-9.0),
    dict(shear_x=4.0, shear_y=7.0, angle=-5.0, tx=3.0),
    dict(brightness=0.7),
    dict(brightness=1.3),
    dict(contrast=0.7),
    dict(contrast=1.3),
    dict(brightness=1.3, contrast=1.3),
    ALL,
    ALL | dict(flip=True),
    ALL | dict(interpolation="nearest"),
    ALL | dict(contrast=1.29, brightness=0.74, angle=9.7, scale=0.91),
    dict(angle=10.0, interpolation="bicubic"),
    dict(scale=0.73, tx=9.0, ty=-11.0, interpolation="bicubic"),
    ALL | dict(interpolation="bicubic"),
    dict(gamma=0.7),
    ALL | dict(gamma=1.4),
]


def bicubic(image, angle, translate, scale, shear, fill):
    """torchvision's affine does not sample tensors bicubically, so this is PyTorch's sampling of torchvision's points."""
    height, width = image.shape[-2:]
    matrix = _get_inverse_affine_matrix([0.0, 0.0], angle, translate, scale, shear)
    theta = torch.tensor(matrix).reshape(1, 2, 3)
    grid = _affine_grid(theta, w=width, h=height, ow=width, oh=height)
    sampled = torch.nn.functional.grid_sample(image[None], grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return sampled[0].clamp(0, 1)


SIZES = [(40, 56), (48, 48), (33, 47)]

tensors, cases = {}, []
for i, case in enumerate(CASES):
    height, width = SIZES[i % len(SIZES)]
    p = IDENTITY | case
    image = torch.from_numpy(picture(f"augment/image{i}", height, width))[None].float() / 255
    mask = torch.from_numpy(picture(f"augment/mask{i}", height, width) // 64)[None]
    if p["flip"]:
        image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
    affine = dict(
        angle=p["angle"],
        translate=[p["tx"], p["ty"]],
        scale=p["scale"],
        shear=[p["shear_x"], p["shear_y"]],
        fill=0,  # what RandomAffine passes
    )
    if p["interpolation"] == "bicubic":
        image = bicubic(image, **affine)
    else:
        image = F.affine(image, interpolation=InterpolationMode(p["interpolation"]), **affine)
    mask = F.affine(mask, interpolation=InterpolationMode.NEAREST, **affine)
    image = F.adjust_brightness(image, p["brightness"])
    image = F.adjust_contrast(image, p["contrast"])
    image = F.adjust_gamma(image, p["gamma"])
    image = F.normalize(image, [0.5], [0.5])
    tensors[f"image{i}"] = image[0].numpy()
    tensors[f"mask{i}"] = np.ascontiguousarray(mask[0].numpy())
    cases.append(p | {"width": width, "height": height})
FIXTURES.mkdir(exist_ok=True)
save_file(tensors, FIXTURES / "augment.safetensors")
write_json("augment.json", cases)
