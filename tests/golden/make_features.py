"""Features of made-up images by pytorch-fid, clean-fid and torch-fidelity, all with the same made-up
weights, which Rust makes alike; and torchvision's ResNets.

Some columns of the features are kept, some pixels of what each tool gives to the network, and FID of
one half of the images and the other."""

import shutil
import tempfile
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytorch_fid.inception
import torch
import torch_fidelity
import torchvision
from cleanfid.utils import ResizeDataset
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path, get_activations
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms.v2 import functional as transforms

from common import FIXTURES, fill, picture, signal, uniform

torch.set_grad_enabled(False)
IMAGES = 64
# Width, height.
SIZES = [(224, 224), (299, 299), (64, 48), (301, 200), (512, 384), (97, 333), (17, 23), (640, 300)]
COLUMNS = slice(None, None, 32)
PIXELS = slice(None, None, 23)
# Of the weights: with these features differ between images about as real ones do.
GAIN = {"inception": 1.85, "resnet18": 1.4, "resnet50": 1.4}


def made_up(i):
    """A triangle wave under noise, uint8 (height, width) or (height, width, 3); every third one is grey."""
    width, height = SIZES[i % len(SIZES)]
    channels = 1 if i % 3 == 0 else 3
    along_x, along_y, by_channel, share = np.floor(uniform(f"features/{i}", 4) * 17).astype(np.int64)
    y, x, c = np.mgrid[:height, :width, :channels]
    wave = np.abs((x * along_x + y * along_y + c * by_channel * 10) % 510 - 255)
    noise = picture(f"features/{i}/noise", height, width * channels).reshape(height, width, channels)
    pixels = ((wave * share + noise.astype(np.int64) * (16 - share)) // 16).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def inception(file):
    """pytorch-fid's network with our weights in place of the download; they are written to `file`."""
    network = torchvision.models.Inception3
    load = network.load_state_dict

    def filled(self, _state):
        network.load_state_dict = load
        fill(self, "inception", GAIN["inception"])
        torch.save(self.state_dict(), file)

    network.load_state_dict = filled
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: None
    net = pytorch_fid.inception.InceptionV3([3]).eval()
    fidelity = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))
    return net, fidelity


def distances(folders, net, pooled, weights):
    """FID of two folders as each tool makes it from end to end."""
    cpu = torch.device("cpu")
    sides = [compute_statistics_of_path(folder, net, 1, 2048, cpu, 0) for folder in folders]
    yield "pytorch-fid", calculate_frechet_distance(*sides[0], *sides[1])
    model = lambda batch: pooled((batch - 128) / 128).flatten(1)
    yield "clean-fid", cleanfid.fid.compare_folders(*folders, model, "clean", num_workers=0, batch_size=8, device=cpu)
    metrics = torch_fidelity.calculate_metrics(
        input1=folders[0],
        input2=folders[1],
        cuda=False,
        fid=True,
        cache=False,
        batch_size=1,
        feature_extractor_weights_path=str(weights),
        verbose=False,
    )
    yield "torch-fidelity", metrics["frechet_inception_distance"]


def main():
    tensors = {}

    def keep(name, value):
        tensors[name] = torch.as_tensor(np.asarray(value)).to(torch.float32).contiguous()
        print(name, tuple(value.shape), "std over images", float(np.asarray(value).std(0).mean()), "largest", float(abs(value).max()), flush=True)

    with tempfile.TemporaryDirectory() as place:
        weights, folder = Path(place) / "weights.pth", Path(place) / "images"
        net, fidelity = inception(weights)
        # Their own arithmetic in less time.
        net, fidelity = (network.to(memory_format=torch.channels_last) for network in (net, fidelity))
        pooled = torch.nn.Sequential(*net.blocks)
        folder.mkdir()
        files = []
        for i in range(IMAGES):
            files.append(str(folder / f"{i:02}.png"))
            Image.fromarray(made_up(i)).save(files[-1])
        rgb = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None] for file in files]

        features = get_activations(files, net, batch_size=1, num_workers=0)
        keep("pytorch-fid", features[:, COLUMNS])
        features = torch.cat([fidelity(image)[0] for image in rgb])
        keep("torch-fidelity", features[:, COLUMNS])
        clean = cleanfid.fid.get_folder_features(
            str(folder),
            model=lambda batch: pooled((batch - 128) / 128).flatten(1),
            num_workers=0,
            batch_size=8,
            device=torch.device("cpu"),
            mode="clean",
        )
        keep("clean-fid", clean[:, COLUMNS])

        halves = [str(Path(place) / half) for half in "ab"]
        for half, of_half in zip(halves, (files[: IMAGES // 2], files[IMAGES // 2 :])):
            Path(half).mkdir()
            for file in of_half:
                shutil.copy(file, half)
        for tool, distance in distances(halves, net, pooled, weights):
            keep(f"{tool}/fid", np.array([float(distance)]))

        resized = ResizeDataset(files, mode="clean")
        for i in range(len(SIZES)):
            to = (299, 299)
            bilinear = torch.nn.functional.interpolate(rgb[i] / 255, size=to, mode="bilinear", align_corners=False)
            first = interpolate_bilinear_2d_like_tensorflow1x(rgb[i].float(), size=to, align_corners=False)
            for name, image in [
                ("pytorch-fid", 2 * bilinear - 1),
                ("clean-fid", (resized[i][None] - 128) / 128),
                ("torch-fidelity", (first - 128) / 128),
            ]:
                keep(f"{name}/{i}", image[0, :, PIXELS, PIXELS])

    for name, network in [("resnet18", torchvision.models.resnet18()), ("resnet50", torchvision.models.resnet50())]:
        fill(network, name, GAIN[name])
        network.eval()
        body = torch.nn.Sequential(*list(network.children())[:-1])
        images = signal(f"{name}/images", (2, 3, 224, 224))
        keep(f"{name}/logits", network(images))
        keep(f"{name}/features", body(images).flatten(1))
        normal = lambda image: transforms.normalize(
            transforms.resize(image / 255, [224, 224], antialias=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        )
        if name == "resnet50":
            keep(f"{name}/pictures", body(torch.cat([normal(image) for image in rgb[: len(SIZES)]])).flatten(1)[:, COLUMNS])

    save_file(tensors, FIXTURES / "features.safetensors")
    print("features.safetensors", (FIXTURES / "features.safetensors").stat().st_size, "bytes")


main()
