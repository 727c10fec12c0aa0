"""What a setting costs: the same measurement with and without it in turns, and the ratio of the medians.

Usage: uv run python benchmarks/paired.py sync|rights|isolation|checkout [--beside CHECKOUT] [--rounds 5]
    [options of end_to_end.py]

A machine that is busy with other things is busy in both, so the ratio holds where the figures do not.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

VARIANTS = {
    "sync": (["--nats-sync", "always"], ["--nats-sync", "interval"]),
    "rights": (["--rights"], []),
    "isolation": (["--isolation", "process"], ["--isolation", "shared"]),
    "checkout": ([], []),
}
ROOT = Path(__file__).parents[1]
FIGURES = ("idle_submit_to_terminal_p50_ms", "submissions_per_second", "runs_per_second_end_to_end", "cpu_ms_per_run")


def main() -> None:
    """Measure in turns; print each round and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=VARIANTS)
    parser.add_argument("--beside", type=Path, help="another checkout, with its own .venv: the second variant")
    parser.add_argument("--rounds", type=int, default=5)
    wanted, others = parser.parse_known_args()
    print(f"one write with fsync: {fsync_ms():.2f} ms (median)", flush=True)
    found: tuple[list[dict], list[dict]] = ([], [])
    for number in range(wanted.rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):  # nobody always comes first
            checkout = wanted.beside if side == 1 and wanted.beside else ROOT
            found[side].append(measure(checkout, [*VARIANTS[wanted.what][side], *others]))
        pair = [{name: rounds[-1][name] for name in FIGURES} for rounds in found]
        names = [" ".join(options) or "without" for options in VARIANTS[wanted.what]]
        if wanted.beside:
            names = ["here", "beside"]
        print(json.dumps(dict(zip(names, pair, strict=True))), flush=True)
    for name in FIGURES:
        ours, theirs = (statistics.median(one[name] for one in rounds) for rounds in found)
        ratios = sorted(a[name] / b[name] for a, b in zip(*found, strict=True))
        middle, least, most = statistics.median(ratios), ratios[0], ratios[-1]
        print(f"{name}: {ours:g} against {theirs:g}, ratio {middle:.2f} ({least:.2f} to {most:.2f})")


def measure(checkout: Path, arguments: list[str]) -> dict:
    """Run the measurement of a checkout in a process of its own."""
    command = [checkout / ".venv/bin/python", checkout / "benchmarks/end_to_end.py", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def fsync_ms() -> float:
    """Give how long a small write takes until it is on this disk."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(b"x" * 600)
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


if __name__ == "__main__":
    main()
