"""Checkpoints as torch.save writes them, in both formats, and the same tensors as safetensors.

Run it with requirements.txt's torch; run with torch 2.0.1 (and numpy below 2) it writes that version's file only.
Nothing in the files depends on the clock or on addresses.
"""

import collections
import io
import pickle
import pickletools
import types

import numpy as np
import torch

from common import FIXTURES, signal

FOLDER = FIXTURES / "checkpoints"
FOLDER.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
torch.set_num_threads(1)
expected = {}


class Scale(torch.nn.Parameter):
    """A parameter that knows more than a parameter."""


def without_addresses(data: bytes, value, protocol: int) -> bytes:
    """A legacy file's storages have their addresses as keys, and lie in that order: here they are counted."""
    sizes = {}

    class Storages(pickle.Pickler):
        def persistent_id(self, part):
            if isinstance(part, torch.storage.TypedStorage):
                sizes.setdefault(str(part._untyped_storage._cdata), part._untyped_storage.nbytes())
                return True

    Storages(io.BytesIO(), protocol).dump(value)
    file = io.BytesIO(data)
    for _ in range(5):
        list_at = file.tell()
        for _ in pickletools.genops(file):
            pass
    storages = {}
    for key in sorted(sizes):
        storages[key] = file.read(8 + sizes[key])
    assert not file.read(), "all of the file is known"
    objects, names = data[:list_at], {}
    for number, key in enumerate(sizes):
        names[key] = str(number).zfill(len(key))
        objects = objects.replace(key.encode(), names[key].encode())
    ordered = sorted(sizes, key=names.get)
    keys = pickle.dumps([names[key] for key in ordered], protocol)
    return objects + keys + b"".join(storages[key] for key in ordered)


def save(name: str, value, legacy=False, **options) -> None:
    buffer = io.BytesIO()
    if legacy:
        torch.save(value, buffer, _use_new_zipfile_serialization=False, **options)
        protocol = options.get("pickle_protocol", 2)
        (FOLDER / name).write_bytes(without_addresses(buffer.getvalue(), value, protocol))
    else:
        torch.save(value, buffer, **options)
        (FOLDER / name).write_bytes(buffer.getvalue())
    print(name, (FOLDER / name).stat().st_size, "bytes")


def expect(name: str, tensors: dict) -> None:
    for key, tensor in tensors.items():
        expected[f"{name}/{key}"] = tensor.detach().clone(memory_format=torch.contiguous_format)


def network() -> torch.nn.Module:
    net = torch.nn.Sequential(collections.OrderedDict(
        conv=torch.nn.Conv2d(1, 3, 3), norm=torch.nn.BatchNorm2d(3), head=torch.nn.Conv2d(3, 2, 1)))
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(signal(f"checkpoint/{name}", tuple(tensor.shape)))
    return net


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(signal(f"images/{step}", (2, 1, 6, 6))).square().mean().backward()
        optimizer.step()
    return net, optimizer


def every_view() -> dict:
    base = signal("base", (4, 6))
    values = signal("values", (7,)) * 100
    deepest = torch.arange(24, dtype=torch.int16).reshape(2, 3, 4)
    scale = Scale(torch.tensor([1.5, -0.0, float("inf"), float("nan")]))
    scale.unit = "mm"
    marked = torch.tensor([2.0, 3.0])
    marked.origin = "a tensor with an attribute"
    return {
        "base": base,
        # The same storage, in other orders.
        "transposed": base.t(),
        "row": base[2],
        "every_second": base[1::2, ::3],
        "corner": base[3, 5],
        "overlapping": base.flatten().unfold(0, 6, 2),
        "expanded": base[:, :1].expand(4, 5),
        "same": base,
        "turned": deepest.permute(2, 0, 1),
        "channels_last": signal("image", (2, 3, 4, 5)).contiguous(memory_format=torch.channels_last),
        "f64": values.double() / 3,
        "f16": values.half(),
        "bf16": values.bfloat16(),
        "i64": torch.tensor([-(2**63), -1, 0, 2**63 - 1]),
        "i32": values.int(),
        "i8": values.to(torch.int8),
        "u8": torch.arange(250, 256, dtype=torch.uint8),
        "bool": values > 0,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "empty_view": base[4:, 1:],
        "parameter": torch.nn.Parameter(values[2:5]),
        "frozen": torch.nn.Parameter(values[:2].clone(), requires_grad=False),
        "subclass": scale,
        "marked": marked,
    }


def trainer_state(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    return {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "loss": np.float64(0.25),
        "best": np.float32(0.5),
        "worst": np.int64(-4),
        "amp": np.bool_(True),
        "optimizer_state_dict": optimizer.state_dict(),
        "metrics": (np.float16(0.5), np.uint8(200), 1e-3, None, False, 2**70, -1),
        "random": torch.arange(16, dtype=torch.uint8),
        "lines": b"\x00\xff bytes",
        "nothing": b"",
        "seen": {1, 2},
        "milestones": collections.Counter({2: 1}),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "unknown": torch.complex64,
        "text": "caf\u00e9 \U0001fac0",
        "nested": [[], [{"a": [1.0]}], ()],
    }


if torch.__version__.startswith("2.0."):
    views = every_view()
    save("views_torch_2.0.pt", views)
    raise SystemExit

net, optimizer = trained()
state = net.state_dict()
save("state_dict.pth", state)
save("state_dict_legacy.pth", state, legacy=True)
expect("state_dict", state)
save("training.pt", trainer_state(net, optimizer))
save("training_legacy.pt", trainer_state(net, optimizer), legacy=True)
for protocol in (3, 4, 5):
    save(f"training_{protocol}.pt", trainer_state(net, optimizer), pickle_protocol=protocol)
save("training_legacy_4.pt", trainer_state(net, optimizer), legacy=True, pickle_protocol=4)

views = every_view()
save("views.pt", views)
save("views_legacy.pt", views, legacy=True)
expect("views", views)

wrapped = collections.OrderedDict((f"module._orig_mod.{name}", tensor) for name, tensor in state.items())
save("wrapped.pth", wrapped)
lightning = collections.OrderedDict((f"model.{name}", tensor) for name, tensor in state.items())
save("lightning.ckpt", {"epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.5.0", "state_dict": lightning,
                        "loops": {}, "callbacks": {}, "optimizer_states": [optimizer.state_dict()],
                        "lr_schedulers": []})
average = torch.optim.swa_utils.AveragedModel(net)
save("average.pt", average.state_dict())
save("two.pt", {"model": state, "ema": {name: tensor + 1 for name, tensor in state.items()}, "step": 4})
expect("two", {name: tensor + 1 for name, tensor in state.items()})
save("one.pt", signal("latents", (1, 2, 3)))
expect("one", {"tensor": signal("latents", (1, 2, 3))})


class Python2Pickler(pickle._Pickler):
    """Texts as Python 2 wrote them, dicts as lists of lists, and the tensors of PyTorch before 0.4."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text: str) -> None:
        encoded = text.encode()
        self.write(pickle.SHORT_BINSTRING + bytes([len(encoded)]) + encoded)
        self.memoize(text)

    dispatch[str] = save_text

    def reducer_override(self, value):
        if isinstance(value, collections.OrderedDict):
            return collections.OrderedDict, ([list(pair) for pair in value.items()],)
        if isinstance(value, torch.Tensor):
            where = (value.storage_offset(), tuple(value.shape), value.stride())
            return torch._utils._rebuild_tensor, (value._typed_storage(), *where)
        return NotImplemented


def python2_dump(value, file, protocol):
    Python2Pickler(file, protocol=protocol).dump(value)


python2 = types.SimpleNamespace(Pickler=Python2Pickler, dump=python2_dump, __name__="pickle")
save("python2.pth", collections.OrderedDict(state), legacy=True, pickle_module=python2)

from safetensors.torch import save_file  # noqa: E402 (torch 2.0's environment has none)

save_file(expected, FOLDER / "expected.safetensors")
print("expected.safetensors", (FOLDER / "expected.safetensors").stat().st_size, "bytes")
print(sum(path.stat().st_size for path in FOLDER.iterdir()), "bytes in all")
