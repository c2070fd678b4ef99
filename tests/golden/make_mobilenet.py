"""Logits, features, gradients and statistics of torchvision's MobileNetV3-Small, on weights that Rust makes alike."""

import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v3_small

from common import FIXTURES, fill, signal, write_json

# Of the weights (see `fill`): logits of about 1 that the images decide.
GAIN = {4: 1.9, 2: 1.8}
# The first one passes all activations. Where rounding moves a value over a kink of one, it changes by some 1e-4:
# the test allows for that.
GRADIENTS = ["features.0.0.weight", "features.11.block.2.fc1.weight", "classifier.0.bias", "classifier.3.weight"]
NORMS = ["features.0.1", "features.12.1"]
torch.set_grad_enabled(False)
torch.set_num_threads(1)
tensors = {}

for classes, shape in [(4, (3, 3, 96, 96)), (2, (2, 3, 160, 128)), (4, (2, 3, 224, 224))]:
    key = f"mobilenet_v3_small_{classes}"
    name = f"{key}/{'x'.join(map(str, shape))}"
    # Nothing is dropped: what is drawn cannot be the same.
    net = mobilenet_v3_small(num_classes=classes, dropout=0.0)
    fill(net, key, GAIN[classes])
    images = signal(name, shape)
    net.eval()
    tensors[f"{name}/eval"] = net(images)
    # A linear layer's input: Hardswish is in place.
    tensors[f"{name}/features"] = net.classifier[:3](net.avgpool(net.features(images)).flatten(1))[:, ::7].contiguous()
    with torch.enable_grad():
        out = net.train()(images)
        (out * signal(f"{name}/cotangent", tuple(out.shape))).sum().backward()
    tensors[f"{name}/train"] = out.detach()
    print(name, "std", tensors[f"{name}/eval"].std().item(), "images differ by",
          tensors[f"{name}/eval"].std(0).mean().item(), "train", out.std(0).mean().item())
    for parameter in GRADIENTS:
        # A part of a large one, at an odd stride.
        kept = dict(net.named_parameters())[parameter].grad.flatten()[::37].contiguous()
        print(" ", parameter, kept.numel(), "gradients, std", kept.std().item())
        tensors[f"{name}/gradient/{parameter}"] = kept
    for norm in NORMS:
        for statistic in ("running_mean", "running_var"):
            tensors[f"{name}/{norm}.{statistic}"] = net.state_dict()[f"{norm}.{statistic}"].clone()

# The order in which weights are frozen, and the names of a checkpoint.
net = mobilenet_v3_small()
write_json("mobilenet.json", {
    "parameters": [[name, list(parameter.shape)] for name, parameter in net.named_parameters()],
    "state": sorted(name for name in net.state_dict() if not name.endswith("num_batches_tracked")),
})
print(sum(p.numel() for p in net.parameters()), "parameters")
for module in ("features.0.0", "features.4.block.1.0", "features.4.block.2.fc1", "classifier.0", "classifier.3"):
    layer = net.get_submodule(module)
    bias = "no bias" if layer.bias is None else f"bias {layer.bias.abs().max().item()}"
    print("drawn:", module, tuple(layer.weight.shape), "std", layer.weight.std().item(), bias)

save_file(tensors, FIXTURES / "mobilenet.safetensors")
print("mobilenet.safetensors", (FIXTURES / "mobilenet.safetensors").stat().st_size, "bytes")
