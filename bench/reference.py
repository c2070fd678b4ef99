#!/usr/bin/env python3
"""The yardstick: one training epoch of the two tasks in plain PyTorch, as a careful user writes it.

MONAI's UNet or torchvision's ResNet-18, torchvision's v2 transforms, a DataLoader with worker
processes. Timed are whole epochs: reading the PNG files, augmentation, forward, backward, step.
Prints one JSON document; everything in f32.

    python bench/reference.py --data DIR --task segmentation --epochs 3
"""

import argparse
import csv
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from memory import Peak
from monai.networks.nets import UNet
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models import resnet18
from torchvision.transforms import v2

SIDE = {"segmentation": 256, "classification": 224}
BATCH = {"segmentation": 4, "classification": 32}


class Manifest(Dataset):
    """The training rows of a manifest folder, as (image, mask) or (image, phase)."""

    def __init__(self, folder, task, limit):
        self.folder, self.task = Path(folder), task
        with open(self.folder / "manifest.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        self.rows = rows[:limit]
        side = SIDE[task]
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((side, side), antialias=True),
                v2.RandomAffine(
                    degrees=10,
                    translate=(0.1, 0.1),
                    scale=(0.9, 1.1),
                    shear=10,
                    interpolation=v2.InterpolationMode.BILINEAR,
                ),
                v2.ColorJitter(brightness=0.3, contrast=0.3),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean=[0.5], std=[0.5]),
            ]
        )

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        image = Image.open(self.folder / row["image"]).convert("L")
        if self.task == "classification":
            image = self.transform(image)
            return image.expand(3, -1, -1), int(row["phase"] == "ES")
        mask = tv_tensors.Mask(v2.functional.pil_to_tensor(Image.open(self.folder / row["mask"])))
        # One draw for both; v2 resamples a Mask by nearest neighbour and leaves its values alone.
        image, mask = self.transform(image, mask)
        return image, mask[0].long()


def recipe(task, device):
    """Network, loss and optimizer."""
    if task == "segmentation":
        network = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=4,
            channels=(2, 4, 8, 16, 32, 64, 128, 256),
            strides=(2,) * 7,
            num_res_units=0,
            act=("LeakyReLU", {"negative_slope": 0.1}),
            norm="instance",
        ).to(device)
        loss = nn.CrossEntropyLoss(weight=torch.tensor([0.05, 0.25, 0.35, 0.35], device=device))
        return network, loss, torch.optim.Adam(network.parameters(), lr=1e-3)
    network = resnet18(weights=None, num_classes=2).to(device)
    return network, nn.CrossEntropyLoss(), torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)


def train(loader, network, loss, optimizer, device, steps=None):
    """One epoch (or its first `steps` steps); the mean loss."""
    network.train()
    total, count = 0.0, 0
    for step, (images, truth) in enumerate(loader):
        if step == steps:
            break
        images, truth = images.to(device, non_blocking=True), truth.to(device, non_blocking=True)
        optimizer.zero_grad()
        value = loss(network(images), truth)
        value.backward()
        optimizer.step()
        total += value.item() * len(images)
        count += len(images)
    return total / max(count, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder with manifest.csv")
    parser.add_argument("--task", required=True, choices=sorted(SIDE))
    parser.add_argument("--epochs", type=int, default=3, help="epochs to time; the median counts")
    parser.add_argument("--limit", type=int, help="take the first LIMIT training images only")
    parser.add_argument("--warmup-steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the DataLoader")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (its own choice without)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with Peak(os.getpid()) as peak:
        data = Manifest(arguments.data, arguments.task, arguments.limit)
        if not len(data):
            sys.exit(f"error: {arguments.data}/manifest.csv has no training rows")
        loader = DataLoader(
            data,
            batch_size=BATCH[arguments.task],
            shuffle=True,
            num_workers=arguments.workers,
            persistent_workers=arguments.workers > 0,
            pin_memory=arguments.device != "cpu",
        )
        device = torch.device(arguments.device)
        network, loss, optimizer = recipe(arguments.task, device)
        train(loader, network, loss, optimizer, device, arguments.warmup_steps)
        seconds, losses = [], []
        for epoch in range(arguments.epochs):
            start = time.perf_counter()
            losses.append(train(loader, network, loss, optimizer, device))
            seconds.append(time.perf_counter() - start)
            print(f"epoch {epoch + 1}: {seconds[-1]:.2f} s, loss {losses[-1]:.4f}", file=sys.stderr)
    result = {
        "task": arguments.task,
        "precision": "f32",
        "seconds_per_epoch": round(statistics.median(seconds), 3),
        "seconds": [round(value, 3) for value in seconds],
        "images": len(data),
        "last_loss": round(losses[-1], 5),
        "peak_rss_mb": peak.megabytes,
        "threads": torch.get_num_threads(),
        "workers": arguments.workers,
        "device": arguments.device,
        "version": f"torch {torch.__version__}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
