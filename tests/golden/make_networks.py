"""Outputs of MONAI's UNet and torchvision's classification networks on weights that Rust makes alike, and
MONAI's Dice loss.

Only a part of each U-Net output is kept, at odd strides, so that every phase of the transposed
convolutions is seen."""

import torch
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from safetensors.torch import save_file
from torchvision.models import efficientnet_b0, resnet18, resnet50, vgg16, vgg19

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

# Of the weights: see `fill`.
GAIN = {"resnet50": 1.4, "vgg16": 1.0, "vgg19": 1.0, "efficientnet_b0": 2.0}
# Whose gradients are kept, and a batch norm whose statistics are. Of the ResNet none far from its end:
# PyTorch's own differ by 0.006 there between one thread and two.
WATCHED = {
    "resnet50": (["layer4.2.bn2.weight", "layer4.2.bn3.bias"], "layer4.2.bn3"),
    "vgg16": (["features.0.weight", "classifier.6.weight"], None),
    "vgg19": (["features.0.weight", "classifier.6.weight"], None),
    "efficientnet_b0": (["features.0.0.weight", "features.4.1.block.2.fc1.weight"], "features.8.1"),
}
for make in (resnet50, vgg16, vgg19, efficientnet_b0):
    key, shape = make.__name__, (3, 3, 96, 96)
    gradients, norm = WATCHED[key]
    # Nothing is dropped: what is drawn cannot be the same.
    arguments = {"vgg": {"dropout": 0.0}, "eff": {"dropout": 0.0, "stochastic_depth_prob": 0.0}}.get(key[:3], {})
    net = make(num_classes=4, **arguments)
    fill(net, key, GAIN[key])
    images = signal(f"{key}/images", shape)
    tensors[f"{key}/eval"] = net.eval()(images)
    with torch.enable_grad():
        out = net.train()(images)
        (out * signal(f"{key}/cotangent", tuple(out.shape))).sum().backward()
    tensors[f"{key}/train"] = out.detach()
    print(key, "images differ by", tensors[f"{key}/eval"].std(0).mean().item(), "train", out.std(0).mean().item())
    for name in gradients:
        # A part of a large one, at an odd stride.
        kept = dict(net.named_parameters())[name].grad.flatten()[::37].contiguous()
        print(" ", name, kept.numel(), "gradients, std", kept.std().item())
        tensors[f"{key}/gradient/{name}"] = kept
    if norm:
        for statistic in ("running_mean", "running_var"):
            tensors[f"{key}/{norm}.{statistic}"] = net.state_dict()[f"{norm}.{statistic}"].clone()

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
