#!/usr/bin/env python3
"""Times Synecho against the same work in plain Python, in one run, and checks the targets.

- The two tasks: one epoch against bench/reference.py, on the same files. Synecho reads and resizes all files once,
  before its first epoch. That time is added to its epoch.
- The flow-matching model of the preset cpu: one training step, and a batch of images in 10 steps, against the fastest
  of plain PyTorch, torch.compile, and torch.compile with channels last, in the same precision.
- The diffusion models: one step against bench/reference_diffusion.py, which needs no files. The script also reports
  how Python's own bf16 compares with its f32, since whether bf16 pays depends on the CPU. The images of the ControlNet
  are not augmented. Synecho keeps their latents after the first pass and is timed after it. The reference encodes
  them in each step, as its script does.
- FID of two halves of the folder's images: the whole program against the whole of pytorch-fid
  (bench/reference_fid.py), with the same made-up weights.
- The Frechet distance of 1600 and 1600 features of 2048 dimensions: against pytorch-fid's
  (bench/reference_frechet.py).

The script runs the programs in turn and prints a table, or JSON with --json. It measures peak memory from outside
and in the same way for both (see memory.py). On a CPU without bf16 instructions libtorch emulates bf16, so the script
skips it unless --emulated is given. With --programs given several times it times several builds against the same
reference, for example before and after a change. The exit code is 1 if a target is missed.

    python bench/compare.py --data DIR
    python bench/compare.py --only diffusion
    python bench/compare.py --data DIR --programs BEFORE/release/examples --programs target/release/examples
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import Peak

PROJECT = Path(__file__).resolve().parent.parent
# Synecho's share of the time that the reference takes in f32 (task, precision, at most).
EPOCHS = [("segmentation", "f32", 0.60), ("classification", "f32", 0.80), ("classification", "bf16", 0.50)]
DISTANCES = [("fid", "f32", 0.50), ("frechet", "f64", 0.10)]
DIFFUSION = [("ddpm", "f32", 1.0), ("ddpm", "bf16", 0.65), ("controlnet", "f32", 1.0), ("controlnet", "bf16", 0.65)]
# The reference is the fastest of these ways, in the same precision.
BEST = ["flow", "flow-sample"]
DIFFUSION += [(task, precision, 1.0) for task in BEST for precision in ("f32", "bf16")]
WAYS = [[], ["--compile"], ["--compile", "--channels-last"]]


def run(command):
    """The JSON document that a program prints, with the memory that it took at its peak."""
    print("$ " + " ".join(map(str, command)), file=sys.stderr)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with Peak(process.pid) as peak:
        out, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} ended with code {process.returncode}")
    return {**json.loads(out), "peak_rss_mb": peak.megabytes}


def has_bf16(device):
    """Whether the device computes in bf16; a GPU, and any CPU but Linux on x86-64, is believed to."""
    if device != "cpu":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "flags" not in flags or "avx512_bf16" in flags or "amx_bf16" in flags


class Epochs:
    """The two tasks, by epochs."""

    def __init__(self, arguments):
        self.common = ["--data", arguments.data, "--epochs", str(arguments.epochs), "--device", arguments.device]
        if arguments.limit:
            self.common += ["--limit", str(arguments.limit)]

    def reference(self, task, _precision):
        found = run([sys.executable, PROJECT / "bench/reference.py", "--task", task, *self.common])
        return {**found, "seconds": found["seconds_per_epoch"]}

    def synecho(self, programs, task, precision):
        found = run([programs / "bench_epoch", "--task", task, "--precision", precision, *self.common])
        return {**found, "seconds": found["seconds_per_epoch"] + found["load_seconds"]}


class Steps:
    """The diffusion models, by steps."""

    def __init__(self, arguments):
        # All ControlNets start from the same text model.
        self.folder = tempfile.TemporaryDirectory()
        self.common = ["--steps", str(arguments.steps), "--base", self.folder.name, "--device", arguments.device]
        run([arguments.programs[0] / "bench_diffusion", "--task", "base", *self.common])

    def reference(self, task, precision):
        script = PROJECT / "bench/reference_diffusion.py"
        ways = WAYS if task in BEST else [[]]
        found = [run([sys.executable, script, *self.request(task, precision), *way]) for way in ways]
        fastest = min(found, key=lambda one: one["seconds_per_step"])
        return {**fastest, "seconds": fastest["seconds_per_step"]}

    def synecho(self, programs, task, precision):
        found = run([programs / "bench_diffusion", *self.request(task, precision)])
        return {**found, "seconds": found["seconds_per_step"]}

    def request(self, task, precision):
        """A ControlNet is timed from the second pass through its (at most 24) images on: their latents are kept then."""
        warmup = 6 if task == "controlnet" else 2
        return ["--task", task, "--precision", precision, "--warmup-steps", str(warmup), *self.common]


class Distances:
    """FID from files, and the distance alone from features."""

    def __init__(self, arguments):
        self.data, self.limit = arguments.data, arguments.limit
        self.folder = tempfile.TemporaryDirectory()
        self.work = Path(self.folder.name)

    def sets(self):
        """The folder's images as two sets, and made-up weights: made once."""
        halves = [self.work / "real", self.work / "synthetic"]
        if not halves[0].exists():
            files = sorted((Path(self.data).resolve() / "images").glob("*.png"))[: self.limit]
            for i, half in enumerate(halves):
                half.mkdir()
                for file in files[i::2]:
                    (half / file.name).symlink_to(file)
            script = PROJECT / "bench/reference_fid.py"
            subprocess.run([sys.executable, script, "--write-weights", self.work / "inception.safetensors"], check=True)
        return halves

    def reference(self, task, _precision):
        if task == "fid":
            real, synthetic = self.sets()
            found = run([sys.executable, PROJECT / "bench/reference_fid.py", "--images", real, "--other", synthetic])
            return {**found, "seconds": found["seconds_with_fid"], "images": 2 * found["images"]}
        return run([sys.executable, PROJECT / "bench/reference_frechet.py", *self.features()])

    def features(self):
        file = self.work / "features.safetensors"
        if not file.exists():
            script = PROJECT / "bench/reference_frechet.py"
            subprocess.run([sys.executable, script, "--features", file, "--write"], check=True)
        return ["--features", file]

    def synecho(self, programs, task, _precision):
        if task == "frechet":
            return run([programs / "bench_frechet", *self.features()])
        real, synthetic = self.sets()
        weights = self.work / "inception.safetensors"
        # Each build extracts the features itself.
        cache = tempfile.mkdtemp(dir=self.work)
        command = [programs.parent / "synecho", "measure", "fid", "--real", real, "--synthetic", synthetic]
        command += ["--weights", weights, "--cache", cache, "--json", "--quiet"]
        start = time.perf_counter()
        found = run(command)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        run(command)
        print(f"fid again, with kept features: {time.perf_counter() - start:.2f} s (at most 3)", file=sys.stderr)
        images = found["n_real"] + found["n_synthetic"]
        return {**found, "seconds": seconds, "images": images, "threads": os.cpu_count()}


def compare(kind, builds, targets, bf16):
    """The table's rows: one per task, precision and build."""
    rows, references = [], {}

    def reference(task, precision):
        if (task, precision) not in references:
            references[task, precision] = kind.reference(task, precision)
        return references[task, precision]

    for task, precision, at_most in targets:
        if precision == "bf16" and not bf16:
            print(f"{task} in bf16: not timed, this CPU has no bf16 instructions", file=sys.stderr)
            continue
        theirs = reference(task, precision if task in BEST else "f32")
        for build in builds:
            ours = kind.synecho(build, task, precision)
            if ours["images"] != theirs["images"]:
                sys.exit(f"error: {ours['images']} images here and {theirs['images']} there")
            # Threads do none of a GPU's work.
            if theirs.get("device", "cpu") == "cpu" and ours["threads"] != theirs["threads"]:
                sys.exit(f"error: {ours['threads']} threads here and {theirs['threads']} there")
            row = {
                "task": task,
                "precision": precision,
                "build": str(build),
                "images": ours["images"],
                "reference_seconds": theirs["seconds"],
                "synecho_seconds": ours["seconds"],
                "ratio": round(ours["seconds"] / theirs["seconds"], 3),
                "target": at_most,
                "reference_mb": theirs["peak_rss_mb"],
                "synecho_mb": ours["peak_rss_mb"],
            }
            row["met"] = row["ratio"] <= at_most and row["synecho_mb"] <= row["reference_mb"]
            if precision == "bf16" and isinstance(kind, Steps) and task not in BEST:
                row["reference_bf16_ratio"] = round(reference(task, "bf16")["seconds"] / theirs["seconds"], 3)
            rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with manifest.csv, for the two tasks")
    tasks = sorted({task for task, *_ in EPOCHS + DISTANCES + DIFFUSION})
    groups = {"diffusion": Steps, "distances": Distances}
    parser.add_argument("--only", choices=[*tasks, *groups], help="only this task, or all of a kind")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (the distances stay on the CPU)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps of a diffusion model to time")
    parser.add_argument("--limit", type=int, help="take the first LIMIT training images only")
    parser.add_argument("--emulated", action="store_true", help="time bf16 on a CPU without bf16 instructions too")
    parser.add_argument("--json", action="store_true")
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    parser.add_argument(
        "--programs",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder of the built examples; give it again to time several builds (default: target/release/examples)",
    )
    arguments = parser.parse_args()
    arguments.programs = arguments.programs or [target / "release/examples"]

    rows = []
    programs = {Epochs: "bench_epoch", Distances: "bench_frechet", Steps: "bench_diffusion"}
    for kind, targets in [(Epochs, EPOCHS), (Distances, DISTANCES), (Steps, DIFFUSION)]:
        of_kind = groups.get(arguments.only) is kind
        targets = [t for t in targets if of_kind or arguments.only in (None, t[0])]
        if not targets:
            continue
        for build in arguments.programs:
            program = build / programs[kind]
            if not program.is_file():
                sys.exit(f"error: {program} is not built\n  help: cargo build --release --example {program.name}")
        needs_data = kind is Epochs or any(task == "fid" for task, *_ in targets)
        if needs_data and not (arguments.data and (Path(arguments.data) / "manifest.csv").is_file()):
            sys.exit(
                f"error: {arguments.data or 'DIR'}/manifest.csv is not there\n"
                "  help: name a folder that `synecho data import` made: just camus=DIR bench;\n"
                "        the diffusion models need none: just bench --only diffusion"
            )
        rows += compare(kind(arguments), arguments.programs, targets, arguments.emulated or has_bf16(arguments.device))

    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        several = len(arguments.programs) > 1
        build = "| build " if several else ""
        print(f"| task | precision {build}| Python, s | Synecho, s | ratio | target | Python, MB | Synecho, MB | |")
        print("|---" * (9 + several) + "|")
        for row in rows:
            build = f"| {row['build']} " if several else ""
            print(
                f"| {row['task']} | {row['precision']} {build}| {row['reference_seconds']:.2f} "
                f"| {row['synecho_seconds']:.2f} | {row['ratio']:.2f} | <= {row['target']:.2f} "
                f"| {row['reference_mb']:.0f} | {row['synecho_mb']:.0f} | {'met' if row['met'] else 'missed'} |"
            )
        for row in rows:
            if "reference_bf16_ratio" in row:
                print(f"{row['task']}: Python's own bf16 takes {row['reference_bf16_ratio']:.2f} of its f32")
    sys.exit(0 if all(row["met"] for row in rows) else 1)


if __name__ == "__main__":
    main()
