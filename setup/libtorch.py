#!/usr/bin/env python3
"""Puts libtorch where cargo looks for it: .libtorch/ beside the project's Cargo.toml.

    setup/libtorch.py          what the CPU needs
    setup/libtorch.py cuda     the CUDA libraries as well

In this order: what is there already; the libtorch that LIBTORCH names; the PyTorch that this
python3 has; else pip downloads the wheels pinned in libtorch-cpu.txt (libtorch-cuda.txt), of which
only the libraries and the headers are unpacked. A downloaded file appears under its name only when
it is whole, so an interrupted set-up is simply run again.

SYNECHO_LIBTORCH_CACHE=DIR keeps the downloaded wheels in DIR, and takes from there what has the
pinned hash. Needs Python 3.8 and pip; imports nothing else.
"""

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.13.0"
PROJECT = Path(__file__).resolve().parent.parent
HOME = PROJECT / ".libtorch"
SETUP = PROJECT / "setup"
LIBRARY = "lib{}.dylib" if sys.platform == "darwin" else "lib{}.so"

# Without one of these a folder is no libtorch to build with.
NEEDED = {
    "cpu": ["include/ATen/ATen.h", "include/torch/csrc/api/include/torch/torch.h"]
    + ["lib/" + LIBRARY.format(name) for name in ("c10", "torch", "torch_cpu")],
    "cuda": ["lib/" + LIBRARY.format(name) for name in ("c10_cuda", "torch_cuda", "torch_cuda_linalg")],
}

# What is unpacked of each wheel: all that libtorch_cpu.so (libtorch_cuda.so) loads, and no more.
CU13 = "nvidia/cu13/lib/"
UNPACKED = {
    "cpu": {
        "nvidia-cuda-runtime": [CU13 + "libcudart.so.13"],
        "nvidia-cuda-cupti": [CU13 + "libcupti.so.13"],
        "torch": ["torch/version.py", "torch/include/*"]
        + [f"torch/lib/{name}" for name in ("libc10.so", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so")],
    },
    "cuda": {
        "nvidia-cublas": [CU13 + "libcublas.so.13", CU13 + "libcublasLt.so.13"],
        "nvidia-cuda-nvrtc": [CU13 + "libnvrtc.so.13", CU13 + "libnvrtc-builtins.so.13.0"],
        "nvidia-cudnn-cu13": [
            f"nvidia/cudnn/lib/libcudnn{part}.so.9"
            for part in (
                "", "_adv", "_cnn", "_engines_precompiled", "_engines_runtime_compiled", "_graph",
                "_heuristic", "_ops",
            )
        ],
        "nvidia-cufft": [CU13 + "libcufft.so.12"],
        "nvidia-cufile": [CU13 + "libcufile.so.0"],
        "nvidia-curand": [CU13 + "libcurand.so.10"],
        "nvidia-cusolver": [CU13 + "libcusolver.so.12"],
        "nvidia-cusparse": [CU13 + "libcusparse.so.12"],
        "nvidia-cusparselt-cu13": ["nvidia/cusparselt/lib/libcusparseLt.so.0"],
        "nvidia-nccl-cu13": ["nvidia/nccl/lib/libnccl.so.2"],
        "nvidia-nvjitlink": [CU13 + "libnvJitLink.so.13"],
        "nvidia-nvshmem-cu13": ["nvidia/nvshmem/lib/libnvshmem_host.so.3"],
        "torch": [
            f"torch/lib/lib{name}.so"
            for name in ("c10_cuda", "caffe2_nvrtc", "torch_cuda", "torch_cuda_linalg", "torch_nvshmem")
        ],
    },
}
LICENCES = "*.dist-info/licenses/*"
UNPACKED_BYTES = {"cpu": 0.5e9, "cuda": 3.2e9}

PIP_ONLY_PINNED = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
PIP_FOR_LINUX = ["--python-version", "3.12", "--implementation", "cp"]
PIP_FOR_LINUX += ["--platform", "manylinux2014_x86_64"]
for minor in range(17, 29):
    PIP_FOR_LINUX += ["--platform", f"manylinux_2_{minor}_x86_64"]


class Problem(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, what, remedy):
        super().__init__(what)
        self.remedy = remedy


def say(text):
    print(text, flush=True)


def megabytes(size):
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


# --- Looking at a libtorch ----------------------------------------------------------------------


def levels(level):
    return ["cpu"] if level == "cpu" else ["cpu", "cuda"]


def version_of(torch):
    """The version that a libtorch folder or PyTorch package states ("2.13.0+cu130" gives 2.13.0)."""
    with contextlib.suppress(OSError):
        return (torch / "build-version").read_text().strip().split("+")[0]
    with contextlib.suppress(OSError):
        found = re.search(r"__version__ = '([^'+]+)", (torch / "version.py").read_text())
        return found and found.group(1)
    return None


def loads(torch, level):
    """Lets the dynamic linker try; returns its complaint, or None."""
    names = [LIBRARY.format("torch_cpu")] + ([LIBRARY.format("torch_cuda")] if level == "cuda" else [])
    paths = [str(torch / "lib" / name) for name in names]
    load = "import ctypes, sys\nfor path in sys.argv[1:]: ctypes.CDLL(path, ctypes.RTLD_GLOBAL)"
    done = subprocess.run([sys.executable, "-c", load, *paths], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def fault(torch, level):
    """Why this folder cannot serve as libtorch at this level, or None."""
    if not torch.is_dir():
        return "there is no such folder"
    version = version_of(torch)
    if version is None:
        return "it states no version (no build-version)"
    if version != VERSION:
        return f"it is version {version}, and {VERSION} is needed"
    missing = [name for part in levels(level) for name in NEEDED[part] if not (torch / name).is_file()]
    if missing:
        return "it lacks " + ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
    return None


def trial(torch, level):
    """As `fault`, and the dynamic linker tries the libraries."""
    problem = fault(torch, level)
    if problem:
        return problem
    complaint = loads(torch, level)
    return complaint and f"it does not load: {complaint}"


def pytorch():
    """The folder of the PyTorch that this python3 has, found without importing it; or None."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("torch")
        if spec and spec.origin:
            return Path(spec.origin).resolve().parent
    return None


def link(torch):
    """Makes .libtorch/torch stand for `torch`, and .libtorch/nvidia for its neighbour."""
    for name, target in (("torch", torch), ("nvidia", torch.parent / "nvidia")):
        place = HOME / name
        if place.is_symlink():
            place.unlink()
        if target.is_dir() and not place.exists():
            place.symlink_to(target, target_is_directory=True)


# --- Downloading --------------------------------------------------------------------------------


def requirements(name):
    """(name, requirement, sha256, bytes) of each line of a requirements file, `-r` followed."""
    for line in (SETUP / name).read_text().splitlines():
        text, _, comment = line.partition("#")
        text = text.strip()
        if text.startswith("-r "):
            yield from requirements(text[3:].strip())
        elif text:
            yield text.split("==")[0], text, text.rpartition("sha256:")[2], int(comment)


def absent(name, level):
    """The patterns of wheel `name` that are still to be unpacked."""
    wanted = [pattern for part in levels(level) for pattern in UNPACKED[part].get(name, [])]
    return [
        pattern
        for pattern in wanted
        if not ((HOME / pattern[:-2]).is_dir() if pattern.endswith("/*") else (HOME / pattern).is_file())
    ]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def cached(cache, name, digest):
    """The wheel with this hash in the cache, or None."""
    for wheel in sorted(cache.glob(name.replace("-", "_") + "-*.whl")) if cache else []:
        if sha256(wheel) == digest:
            return wheel
    return None


def download(name, requirement, into, staging):
    """One wheel by pip, which checks the hash. `into` is where it will lie."""
    wanted = staging / "wanted.txt"
    wanted.write_text(requirement + "\n")
    fresh = staging / "wheel"
    shutil.rmtree(fresh, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--dest", str(fresh), "--requirement", str(wanted)]
    command += PIP_ONLY_PINNED + PIP_FOR_LINUX + ["--disable-pip-version-check", "--no-input"]
    if not sys.stdout.isatty():
        command.append("--quiet")
    # A user's pip may be set to refuse work outside a virtual environment; nothing is installed here.
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="false")
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", env=environment)
    if done.returncode != 0:
        raise pip_problem(name, done.stderr)
    (wheel,) = fresh.glob("*.whl")
    into.mkdir(parents=True, exist_ok=True)
    # Across file systems a plain move is a copy: put it under its name only when it is whole.
    part = into / f".{wheel.name}.{os.getpid()}"
    shutil.move(str(wheel), str(part))
    return part.replace(into / wheel.name)


def pip_problem(name, said):
    """pip's own words, and what to do about them."""
    cases = [
        ("No module named pip", "give this Python its pip: apt-get install python3-pip, or python3 -m ensurepip"),
        ("DO NOT MATCH THE HASHES", "the file is not the pinned one: a damaged download (run this again, after "
         "`python3 -m pip cache purge`) or another index (see `python3 -m pip config list`)"),
        ("No space left|Disk quota", "free some disk space; TMPDIR says where pip puts its temporary files"),
        ("from versions: none|NewConnection|Name or service|name resolution|Connect|unreachable|Proxy|timed out|Timeout|SSL|Retrying",
         "is the package index within reach? Behind a proxy set HTTPS_PROXY; without a network put the wheels of "
         "setup/libtorch-*.txt into a folder and set SYNECHO_LIBTORCH_CACHE to it"),
        ("No matching distribution", "the package index does not offer it, or pip is too old "
         "(python3 -m pip install --upgrade pip)"),
        ("MemoryError|Killed", "pip ran out of memory: set PIP_NO_CACHE_DIR=1 and run this again"),
    ]  # fmt: skip
    remedy = next((help for words, help in cases if re.search(words, said)), "see what pip says above")
    for line in said.strip().splitlines()[-8:]:
        print(f"  pip: {line}", file=sys.stderr)
    return Problem(f"pip could not download {name}", remedy)


def unpack(wheel, patterns, into):
    """The files of the wheel that match; every pattern must match one."""
    unused = set(patterns)
    size = 0
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            hit = [pattern for pattern in patterns if fnmatch.fnmatchcase(member.filename, pattern)]
            if member.is_dir() or not (hit or fnmatch.fnmatchcase(member.filename, LICENCES)):
                continue
            archive.extract(member, into)
            unused.difference_update(hit)
            size += member.file_size
    if unused:
        raise Problem(
            f"{wheel.name} has no {', '.join(sorted(unused))}",
            "setup/libtorch.py and setup/libtorch-*.txt do not fit together: this is a fault of the project",
        )
    return size


def merge(source, target):
    """Renames `source` to `target`, file by file where the folder is there already."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            merge(child, target / child.name)
    else:
        os.replace(source, target)


def fetch(level, staging):
    """Downloads and unpacks what is absent."""
    cache = os.environ.get("SYNECHO_LIBTORCH_CACHE")
    cache = Path(cache).expanduser().resolve() if cache else None
    todo = [entry for entry in requirements(f"libtorch-{level}.txt") if absent(entry[0], level)]
    total = sum(size for *_, size in todo)
    free = shutil.disk_usage(HOME).free
    room = UNPACKED_BYTES[level] + max(size for *_, size in todo)
    if free < room:
        raise Problem(f"{HOME} has {megabytes(free)} free", f"{megabytes(room)} are needed: free some disk space")
    say(f"libtorch {VERSION} ({level}): {len(todo)} wheels, {megabytes(total)} to fetch")
    for number, (name, requirement, digest, size) in enumerate(todo, 1):
        step = f"[{number}/{len(todo)}] {requirement.split()[0]}"
        wheel = cached(cache, name, digest)
        say(f"{step}: " + (f"from {cache}" if wheel else f"downloading {megabytes(size)}"))
        wheel = wheel or download(name, requirement, cache or staging / "wheels", staging)
        unpacked = unpack(wheel, absent(name, level), staging / "tree")
        say(f"{step}: unpacked {megabytes(unpacked)}")
        if not cache:
            wheel.unlink()
    if (staging / "tree/torch/version.py").is_file():  # torch-sys reads the version in this file
        (staging / "tree/torch/build-version").write_text(VERSION + "\n")
    # torch comes last in the alphabet: its libraries appear after all that they load.
    merge(staging / "tree", HOME)


def downloadable():
    """Raises where the pinned wheels are of no use."""
    glibc = platform.libc_ver()
    fits = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64") and glibc[0] == "glibc"
    if not fits:
        raise Problem(
            f"no libtorch is pinned for {platform.system()} on {platform.machine()} (only Linux with glibc on x86-64)",
            f"python3 -m pip install torch=={VERSION}, then run this again: it takes that PyTorch",
        )
    if tuple(int(part) for part in glibc[1].split(".")[:2]) < (2, 28):
        raise Problem(f"libtorch {VERSION} needs glibc 2.28, and this is {glibc[1]}", "use a newer Linux")


# --- The way through ----------------------------------------------------------------------------


def set_up(level):
    own = os.environ.get("LIBTORCH")
    torch = HOME / "torch"
    if own and os.path.abspath(own) not in (os.path.abspath(torch), str(HOME.resolve() / "torch")):
        # cargo will link against it whatever is set up here, so a wrong one ends the set-up.
        problem = trial(Path(own).resolve(), level)
        if problem:
            raise Problem(
                f"LIBTORCH={own} cannot be used: {problem}",
                f"let it name a libtorch {VERSION} ({level}), or unset it and run this again",
            )
        link(Path(own).resolve())
        return f"the libtorch that LIBTORCH names ({own})"
    if not fault(torch, level) and (torch.is_symlink() or not any(absent(name, level) for name in wheels(level))):
        return f"already there ({torch.resolve()})"
    if torch.is_symlink() or not torch.exists():
        found = pytorch()
        problem = trial(found, level) if found else None
        if found and not problem:
            link(found)
            return f"python3's own PyTorch ({found})"
        if problem:
            say(f"passing over python3's own PyTorch ({found}): {problem}")
    downloadable()
    for name in ("torch", "nvidia"):
        place = HOME / name
        if place.is_symlink():
            place.unlink()
    if torch.is_dir() and version_of(torch) != VERSION:
        shutil.rmtree(torch)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=HOME) as staging:
        fetch(level, Path(staging))
    problem = trial(torch, level)
    if problem:
        raise Problem(f"{torch}: {problem}", f"remove {HOME} and run this again")
    return f"downloaded ({torch})"


def wheels(level):
    return {name for part in levels(level) for name in UNPACKED[part]}


@contextlib.contextmanager
def alone():
    """One set-up at a time in this folder; clears what a killed one left."""
    HOME.mkdir(exist_ok=True)
    with open(HOME / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up of this folder to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in HOME.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def main(arguments):
    level = arguments[0] if arguments else "cpu"
    if level not in ("cpu", "cuda") or len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 0 if level in ("-h", "--help") else 2
    try:
        with alone():
            say(f"libtorch {VERSION} ({level}): {set_up(level)}")
    except Problem as problem:
        print(f"error: {problem}\n  help: {problem.remedy}", file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some disk space" if full else "see that this folder can be written"
        print(f"error: {error}\n  help: {remedy}, then run this again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing half-made is left", file=sys.stderr)
        return 130
    if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))):
        say("note: there is no C++ compiler here, and cargo will need one: apt-get install g++")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
