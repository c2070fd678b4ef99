"""nnU-Net's plain U-Net (dynamic-network-architectures) at every resolution that is supervised, and MONAI's loss of
several resolutions."""

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from safetensors.torch import save_file

from common import FIXTURES, fill_parameters, signal, uniform, write_json


def network(channels):
    stages = len(channels)
    return PlainConvUNet(
        input_channels=1, n_stages=stages, features_per_stage=channels, conv_op=torch.nn.Conv2d, kernel_sizes=3,
        strides=[1] + [2] * (stages - 1), n_conv_per_stage=2, num_classes=4, n_conv_per_stage_decoder=2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=True)


CASES = [("small", [4, 6, 8, 10, 8, 6, 4], (2, 1, 64, 128)), ("strong", [16, 32, 64, 128, 160], (1, 1, 32, 32)), ("two", [3, 5], (1, 1, 6, 4))]
tensors, losses, counts = {}, {}, {}
for key, channels, shape in CASES:
    net = network(channels)
    fill_parameters(net, f"plain/{key}")
    counts[key] = sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        logits = net(signal(f"plain/{key}/images", shape))
    for level, part in enumerate(logits):
        # Of large ones every 4th row and 5th column.
        step = (4, 5) if part.shape[2] >= 32 else (1, 1)
        tensors[f"{key}/{level}"] = part[:, :, ::step[0], ::step[1]].contiguous()
    target = np.floor(uniform(f"plain/{key}/target", shape[0] * shape[2] * shape[3]) * 4)
    target = torch.from_numpy(target.astype(np.float32)).reshape(shape[0], 1, *shape[2:])
    dice = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    losses[key] = {
        "dice": DeepSupervisionLoss(DiceLoss(**dice), weight_mode="exp")(logits, target).item(),
        "dice-cross-entropy": DeepSupervisionLoss(DiceCELoss(**dice), weight_mode="exp")(logits, target).item(),
    }
save_file(tensors, FIXTURES / "plain_unet.safetensors")
write_json("plain_unet.json", {"parameters": counts, "losses": losses})
