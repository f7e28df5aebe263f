"""python -m benchmarks.training_step: images a second of a training step, the fused view against
plain, with float32 maps and with bfloat16.

Forward, loss and backward of MobileFaceNet with ESCA at batch 64, channels last; the four ways in
turn in one run, the medians of several steps each. Writes benchmarks/results/training_step.md.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.hardware import as_line, hardware
from training.fused import fused_view
from training.losses import cosine_distillation
from training.networks.ecacface import MobileFaceNet

BATCH = 64
RESULTS = Path(__file__).parent / "results"


def seconds(
    network: nn.Module, bfloat16: bool, crops: torch.Tensor, teacher: torch.Tensor
) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        embeddings = network(crops)
    cosine_distillation(embeddings, teacher).backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    a = parser.parse_args()
    facts = {**hardware("torch"), "threads": str(a.threads)}
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    network = MobileFaceNet().to(memory_format=torch.channels_last).train()
    fused = fused_view(network)
    ways = {
        "plain": (network, False),
        "plain, bfloat16": (network, True),
        "fused": (fused, False),
        "fused, bfloat16": (fused, True),
    }
    crops = torch.randn(BATCH, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    teacher = nn.functional.normalize(torch.randn(BATCH, 512))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(a.rounds + 2):
        for name, way in ways.items():
            taken = seconds(*way, crops, teacher)
            if turn >= 2:  # the first compile, and touch fresh memory
                times[name].append(taken)
    rates = {name: BATCH / statistics.median(taken) for name, taken in times.items()}
    rows = [
        f"| {name} | {rate:.1f} | {rate / rates['plain']:.2f} |" for name, rate in rates.items()
    ]
    table = "\n".join(["| step | images/s | times plain |", "| --- | --- | --- |", *rows])
    page = f"# A training step\n\n{__doc__.strip()}\n\n{table}\n\n{as_line(facts)}\n"
    (RESULTS / "training_step.md").write_text(page)
    print(table)


if __name__ == "__main__":
    main()
