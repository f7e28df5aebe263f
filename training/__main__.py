"""python -m training VERB: networks trained, measured and counted; each verb is a module of
training/verbs."""

import argparse
import sys
from pathlib import Path

from training.recipes import DataAbsent
from training.verbs import (
    ablation,
    attributes_ablation,
    counted,
    evaluate,
    expression_ablation,
    prepare,
    quality,
    report,
    sizes,
    surgery,
    teaching,
    train,
)

ROOT = Path(__file__).resolve().parents[1]
VERBS = (
    *(prepare, train, report, evaluate, quality, sizes),
    *(ablation, surgery, expression_ablation, attributes_ablation, teaching),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    places.add_argument("--runs", type=Path, default=ROOT / "runs", help="checkpoints and caches")
    places.add_argument("--threads", type=counted, default=2)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in VERBS:
        module.add_to(verbs, places)
    arguments = parser.parse_args()
    try:
        arguments.call(arguments)
    except DataAbsent as absent:
        print(f"python -m training: {absent}", file=sys.stderr)
        raise SystemExit(2) from absent
    except (ValueError, OSError) as error:
        raise SystemExit(f"python -m training: {error}") from error
    except KeyboardInterrupt as stopped:
        print(": ".join(("\nstopped", *stopped.args)), file=sys.stderr)
        raise SystemExit(130) from stopped


if __name__ == "__main__":
    main()
