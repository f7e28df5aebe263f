"""python -m training VERB: networks trained, measured and counted; each verb is a module of
training/verbs."""

import argparse
from pathlib import Path

from training.verbs import (
    ablation,
    attributes_ablation,
    evaluate,
    expression_ablation,
    prepare,
    quality,
    report,
    sizes,
    surgery,
    train,
)

ROOT = Path(__file__).resolve().parents[1]
VERBS = (
    *(prepare, train, report, evaluate, quality, sizes),
    *(ablation, surgery, expression_ablation, attributes_ablation),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    places.add_argument("--runs", type=Path, default=ROOT / "runs", help="checkpoints and caches")
    places.add_argument("--threads", type=int, default=2)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in VERBS:
        module.add_to(verbs, places)
    arguments = parser.parse_args()
    try:
        arguments.call(arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"python -m training: {error}") from error


if __name__ == "__main__":
    main()
