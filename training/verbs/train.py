"""python -m training train: a recipe's run, or its going on from where it stopped."""

import argparse
from pathlib import Path
from typing import Any

from training import attributes, closed_set, expression, ranks, recognition
from training.loop import train
from training.machine import STEPS, this_machine
from training.recipes import Sources, with_settings
from training.verbs import Verbs, running

TASKS = (recognition, expression, attributes, closed_set)  # each has RECIPES and `prepare`
SHIPPED = "ecacface-mobile"


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("train", parents=[places], help="train, or go on where a run stopped")
    verb.set_defaults(call=run)
    verb.add_argument(
        "recipe", nargs="?", default=SHIPPED, help=f"{SHIPPED} unless named; there are {_there()}"
    )
    verb.add_argument(
        "--set",
        dest="settings",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="in place of the recipe's; name=... gives the run a folder of its own",
    )
    verb.add_argument("--steps", type=int, help="as --set steps=...")
    verb.add_argument("--decay-steps", type=int, help="as --set decay_steps=...")
    verb.add_argument(
        "--train", type=Path, nargs="+", default=[], help="training sets, the recipe's own if none"
    )
    verb.add_argument("--validation", type=Path, help="a set, or pairs (.bin), to choose by")
    verb.add_argument("--teacher", type=Path, help="a graph (.onnx) or stored answers (.npy)")
    verb.add_argument("--warm", type=Path, help="weights (safetensors) that a new run begins with")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    verb.add_argument("--step", choices=STEPS, help="the fastest here, unless named")
    verb.add_argument(
        "--plain",
        dest="step",
        action="store_const",
        const="plain",
        help="without the step that needs a C++ compiler",
    )
    verb.add_argument(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        help="matrix products in it; by default where there are units for it",
    )


def run(a: argparse.Namespace) -> None:
    task, recipe = _recipe(a)
    sources = Sources(a.data, a.runs / "cache", tuple(a.train), a.validation, a.teacher, a.threads)
    with running(a.threads):
        machine = this_machine(a.device, step=a.step, bfloat16=a.bfloat16)
        try:
            begun, warm = task.prepare(recipe, sources, machine), a.warm
            while begun:
                folder = a.runs / begun.recipe.name
                train(begun, folder, warm=warm)
                begun, warm = begun.then and begun.then(), folder / "best.safetensors"
        finally:
            ranks.leave()


def _recipe(a: argparse.Namespace) -> tuple[Any, Any]:
    """(the module of the recipe's task, the recipe with what was set). Raises ValueError for an
    unknown one, listing those that there are."""
    lengths = [f"{k}={v}" for k in ("steps", "decay_steps") if (v := getattr(a, k)) is not None]
    for task in TASKS:
        if a.recipe in task.RECIPES:
            return task, with_settings(task.RECIPES[a.recipe](), [*a.settings, *lengths])
    raise ValueError(f"there is no recipe {a.recipe!r}; there are {_there()}")


def _there() -> str:
    return ", ".join(name for task in TASKS for name in task.RECIPES)
