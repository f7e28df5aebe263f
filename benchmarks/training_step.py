"""python -m benchmarks.training_step: images a second of a training step, the fused view against
plain, with float32 maps and with bfloat16.

Forward, loss and backward at batch 64, channels last, of the networks that ship: MobileFaceNet with
ESCA and PAtt-Lite at 112 x 112, MZTS with MobileNet's stem at 128 x 112. Seconds are the process's
own (CPU seconds, over all threads), which other work on the machine disturbs least; the four ways
in turn in one run, the medians of several steps each. Writes benchmarks/results/training_step.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.hardware import as_line, hardware
from training.attributes import network_of
from training.fused import fused_view
from training.losses import cosine_distillation
from training.networks.ecacface import MobileFaceNet
from training.networks.mzts import Zones, self_distillation
from training.networks.patt_lite import PAttLite
from training.recipes.attributes import mzts_hybrid

BATCH = 64
RESULTS = Path(__file__).parent / "results"
WAYS = {  # whether fused, whether bfloat16
    "plain": (False, False),
    "plain, bfloat16": (False, True),
    "fused": (True, False),
    "fused, bfloat16": (True, True),
}

Loss = Callable[[nn.Module, Tensor], Tensor]


def distilled(network: nn.Module, crops: Tensor) -> Tensor:
    torch.manual_seed(0)
    return cosine_distillation(network(crops), F.normalize(torch.randn(BATCH, 512)))


def named(network: nn.Module, crops: Tensor) -> Tensor:
    return F.cross_entropy(network(crops).float(), torch.arange(BATCH) % 8)


def told(network: nn.Module, crops: Tensor) -> Tensor:
    zones = network(crops)
    zones = Zones(zones.logits_GBA.float(), zones.tokens_GBD.float())
    return self_distillation(zones, torch.zeros(BATCH, 40), lam=0)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], Loss]] = {
    "MobileFaceNet": (MobileFaceNet, (112, 112), distilled),
    "PAtt-Lite": (lambda: PAttLite(size=112), (112, 112), named),
    "MZTS, hybrid": (lambda: network_of(mzts_hybrid()), (128, 112), told),
}


def seconds(network: nn.Module, bfloat16: bool, crops: Tensor, loss: Loss) -> float:
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        found = loss(network, crops)
    found.backward()
    return time.process_time() - start


def rates(name: str, rounds: int) -> dict[str, float]:
    """Images a CPU second of each way."""
    build, size, loss = NETWORKS[name]
    network = build().to(memory_format=torch.channels_last).train()
    forms = {False: network, True: fused_view(network)}
    crops = torch.randn(BATCH, 3, *size).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 2):
        for way, (fused, bfloat16) in WAYS.items():
            taken = seconds(forms[fused], bfloat16, crops, loss)
            if turn >= 2:  # the first compile, and touch fresh memory
                times[way].append(taken)
    return {way: BATCH / statistics.median(taken) for way, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    a = parser.parse_args()
    facts = {**hardware("torch"), "threads": str(a.threads), "rounds": str(a.rounds)}
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    rows = [
        f"| {name} | {way} | {rate:.1f} | {rate / found['plain']:.2f} |"
        for name in NETWORKS
        for found in [rates(name, a.rounds)]
        for way, rate in found.items()
    ]
    head = ["| network | step | images a CPU second | times plain |", "| --- | --- | --- | --- |"]
    table = "\n".join([*head, *rows])
    page = f"# A training step\n\n{__doc__.strip()}\n\n{table}\n\n{as_line(facts)}\n"
    (RESULTS / "training_step.md").write_text(page)
    print(table)


if __name__ == "__main__":
    main()
