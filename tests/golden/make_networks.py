"""Outputs of MONAI's UNet and torchvision's ResNet-18 on weights that Rust makes alike, and MONAI's
Dice loss.

Only a part of each U-Net output is kept, at odd strides, so that every phase of the transposed
convolutions is seen."""

import torch
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from safetensors.torch import save_file
from torchvision.models import resnet18

from common import FIXTURES, fill, signal, uniform

torch.set_grad_enabled(False)
tensors = {}


def unet(key, sizes, **config):
    net = UNet(spatial_dims=2, num_res_units=0, act=("LeakyReLU", {"negative_slope": 0.1}), norm="instance", **config)
    fill(net, key)
    net.eval()
    for size in sizes:
        shape = (size[0], config["in_channels"], *size[1:])
        name = f"{key}/{'x'.join(map(str, shape))}"
        out = net(signal(name, shape))
        print(name, sum(p.numel() for p in net.parameters()), "parameters, std", out.std().item())
        tensors[name] = out[..., ::5, ::7].contiguous()
    return sum(p.numel() for p in net.parameters())


count = unet(
    "unet_diffecho",
    [(2, 256, 256), (1, 256, 384)],
    in_channels=1,
    out_channels=4,
    channels=(2, 4, 8, 16, 32, 64, 128, 256),
    strides=(2,) * 7,
)
assert count == 664_282, count
unet(
    "unet_small",
    [(2, 64, 96)],
    in_channels=3,
    out_channels=2,
    channels=(4, 8, 12, 24),
    strides=(2, 1, 2),
)

for classes in (2, 4):
    key = f"resnet18_{classes}"
    for mode in ("eval", "train"):
        for shape in [(2, 3, 224, 224), (3, 3, 160, 160)]:
            net = resnet18(num_classes=classes)
            fill(net, key)
            net.train(mode == "train")
            name = f"{key}/{'x'.join(map(str, shape))}"
            out = net(signal(name, shape))
            print(name, mode, "std", out.std().item())
            tensors[f"{name}/{mode}"] = out
            if mode == "train":
                # Training moves the running statistics.
                for statistic in ("running_mean", "running_var"):
                    tensors[f"{name}/bn1.{statistic}"] = net.state_dict()[f"bn1.{statistic}"].clone()

for batch, classes, absent in [(4, 4, None), (1, 4, 3), (3, 3, 1)]:
    name = f"dice_loss/{batch}x{classes}x24x40"
    logits = 4 * signal(name, (batch, classes, 24, 40))
    target = torch.from_numpy(uniform(f"{name}/target", batch * 24 * 40) * classes).long()
    if absent is not None:
        target[target == absent] = 0
    target = target.reshape(batch, 1, 24, 40)
    # What must not pass: the quotient of each image by itself, then the mean.
    for key, per_batch in [("", True), ("/per_image", False)]:
        loss = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=per_batch)
        tensors[name + key] = loss(logits, target).reshape(1)
        print(name + key, tensors[name + key].item())

FIXTURES.mkdir(exist_ok=True)
save_file(tensors, FIXTURES / "networks.safetensors")
print("networks.safetensors", (FIXTURES / "networks.safetensors").stat().st_size, "bytes")
