#!/usr/bin/env python3
"""One epoch of Synecho against bench/reference.py, side by side in one run, with the targets.

Runs the two programs in turn, on the same files, and prints a table (or --json). Peak memory is
taken from outside and for both alike (see memory.py). Synecho reads and resizes all files once, before
its first epoch: that time is added to its epoch whole. bf16 is left out, with a word, on a CPU without
bf16 instructions, where libtorch emulates it (--emulated times it all the same). Exit code 1 if a
target is missed.

    python bench/compare.py --data DIR
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from memory import Peak

PROJECT = Path(__file__).resolve().parent.parent
# Synecho's share of the reference's time (task, precision, at most).
TARGETS = [("segmentation", "f32", 0.60), ("classification", "f32", 0.80), ("classification", "bf16", 0.50)]


def run(command):
    """The JSON document that a program prints, with the memory that it took at its peak."""
    print("$ " + " ".join(map(str, command)), file=sys.stderr)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with Peak(process.pid) as peak:
        out, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} ended with code {process.returncode}")
    return {**json.loads(out), "peak_rss_mb": peak.megabytes}


def has_bf16():
    """Whether the CPU computes in bf16; anything but Linux on x86-64 is believed to."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "flags" not in flags or "avx512_bf16" in flags or "amx_bf16" in flags


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder with manifest.csv")
    parser.add_argument("--task", choices=sorted({task for task, *_ in TARGETS}), help="only this task")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, help="take the first LIMIT training images only")
    parser.add_argument("--emulated", action="store_true", help="time bf16 on a CPU without bf16 instructions too")
    parser.add_argument("--json", action="store_true")
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    parser.add_argument("--program", type=Path, default=target / "release/examples/bench_epoch")
    arguments = parser.parse_args()
    if not (Path(arguments.data) / "manifest.csv").is_file():
        sys.exit(
            f"error: {arguments.data}/manifest.csv is not there\n"
            "  help: name a folder that `synecho data import` made: just camus=DIR bench"
        )
    if not arguments.program.is_file():
        sys.exit(f"error: {arguments.program} is not built\n  help: cargo build --release --example bench_epoch")

    common = ["--data", arguments.data, "--epochs", str(arguments.epochs)]
    if arguments.limit:
        common += ["--limit", str(arguments.limit)]
    rows, references = [], {}
    for task, precision, at_most in TARGETS:
        if arguments.task not in (None, task):
            continue
        if precision == "bf16" and not (arguments.emulated or has_bf16()):
            print(f"{task} in bf16: not timed, this CPU has no bf16 instructions", file=sys.stderr)
            continue
        if task not in references:
            script = PROJECT / "bench/reference.py"
            references[task] = run([sys.executable, script, "--task", task, *common])
        ours = run([arguments.program, "--task", task, "--precision", precision, *common])
        theirs = references[task]
        if ours["images"] != theirs["images"]:
            sys.exit(f"error: {ours['images']} images here and {theirs['images']} there")
        seconds = ours["seconds_per_epoch"] + ours["load_seconds"]
        rows.append(
            {
                "task": task,
                "precision": precision,
                "images": ours["images"],
                "reference_seconds": theirs["seconds_per_epoch"],
                "synecho_seconds": seconds,
                "ratio": round(seconds / theirs["seconds_per_epoch"], 3),
                "target": at_most,
                "reference_mb": theirs["peak_rss_mb"],
                "synecho_mb": ours["peak_rss_mb"],
            }
        )
        rows[-1]["met"] = rows[-1]["ratio"] <= at_most and ours["peak_rss_mb"] <= theirs["peak_rss_mb"]

    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print("| task | precision | Python, s | Synecho, s | ratio | target | Python, MB | Synecho, MB | |")
        print("|---|---|---|---|---|---|---|---|---|")
        for row in rows:
            print(
                f"| {row['task']} | {row['precision']} | {row['reference_seconds']:.2f} "
                f"| {row['synecho_seconds']:.2f} | {row['ratio']:.2f} | <= {row['target']:.2f} "
                f"| {row['reference_mb']:.0f} | {row['synecho_mb']:.0f} | {'met' if row['met'] else 'missed'} |"
            )
    sys.exit(0 if all(row["met"] for row in rows) else 1)


if __name__ == "__main__":
    main()
