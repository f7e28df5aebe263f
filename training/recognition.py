"""A recipe of recognition as the loop's Run: crops -> embeddings -> distance to the teacher's
answers, and cross-entropy over people.

B crops of a batch, N of a set, D embedding width, C people."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import ranks
from training.data.batches import Batch, Share, coming
from training.data.crops import Crops, join
from training.data.pixels import Pixels
from training.data.sets import NamedSet, named_sets, of_training, read_set
from training.evaluate.pairs import require_both_kinds, similarities, tar_at_far, ten_fold
from training.evaluate.pairsets import PairSet, read_pair_set
from training.evaluate.verification import non_mated_pairs, require_pairs, supported, verification
from training.loop import Run, require_finite
from training.losses import cosine_distillation
from training.machine import Machine
from training.muon import MuonAndAdamW, matrices
from training.networks.ecacface import IR, MobileFaceNet
from training.networks.sranet import SRANet
from training.recipes import DataAbsent, Sources
from training.recipes.recognition import RECIPES, Recipe
from training.sharded import Classifier
from training.teacher import Ask, Target, open_teachers, teacher_embeddings

__all__ = ["RECIPES", "begin", "embed", "network_of", "prepare", "recipe_of"]

NETWORKS: dict[str, Callable[[Recipe], nn.Module]] = {
    "mobile": lambda r: MobileFaceNet(r.attention, r.embedding),
    "mobile56": lambda r: MobileFaceNet(r.attention, r.embedding, size=56),  # the ablation's crops
    "ir50": lambda r: IR(50, r.attention, r.embedding, r.style),
    "ir101": lambda r: IR(101, r.attention, r.embedding, r.style),
    "sranet50": lambda r: _sranet(50, r),
    "sranet100": lambda r: _sranet(100, r),
}
SIDE = 112  # of the crops, in px, that a network takes
SIDES = {"mobile56": 56}  # where it is another
FITTED_ON = 5000  # crops that the teachers' projection is fitted on
STARTED_ON = 2  # crops of a person that its class begins at
FIT = 1 << 43  # a stream of random numbers under the run's seed


def prepare(recipe: Recipe, sources: Sources, machine: Machine) -> Run:
    """The recipe's run on the sources' data; prints what was found beside what the paper had.

    Raises DataAbsent where the training set or the teacher is not there, ValueError for data that
    do not fit together."""
    with ranks.first():
        sets = _training_sets(recipe, sources)
        shares = _shares(recipe, sources, sets)
        crops = sets[0] if len(sets) == 1 else join(*sets)
        teacher = _teacher(recipe, sources, sets)
        validation = _validation_set(recipe, sources)
    run = begin(recipe, crops, teacher, validation, machine, shares)
    run.facts["train"] = [str(path) for path in sources.train]
    return run


def begin(
    recipe: Recipe,
    crops: Crops,
    teacher: NDArray[np.float32] | Ask | None,
    validation: Crops | PairSet | None,
    machine: Machine,
    shares: Sequence[Share] = (),
) -> Run:
    """A Run from fresh weights.

    teacher: answers float32 (N, answer width), row i for crop i, or the teachers themselves, to be
    asked about every crop as it is seen; needed for distillation. shares: see batches. Raises
    ValueError for a recipe whose names or widths do not fit, naming them, and for crops of another
    size than its network's and a validation set that has no pairs."""
    ask = teacher if callable(teacher) else None
    width = _check(recipe, crops, teacher)
    for each in (crops, validation):
        if each is not None:
            _require_side(recipe, each.pixels_NHWC)
    if isinstance(validation, Crops):
        require_pairs(validation.labels_N, "the validation set")
    elif validation is not None:
        require_both_kinds(validation.pairs, f"the validation set {validation.name}")
    torch.manual_seed(recipe.seed)
    network = network_of(recipe).train()
    learns = nn.ModuleDict({"network": network})
    stepping = machine.stepping(network)
    if recipe.classification:
        learns["classifier"] = _classifier(recipe, len(crops.people)).to(machine.device)
    if teacher is not None:
        learns["target"] = Target(width, recipe.embedding).to(machine.device)

    def clean(places: NDArray[np.int64]) -> Tensor:
        """The teachers' answers to unchanged crops."""
        found = ask(crops.pixels_NHWC[places]) if ask else teacher[places]
        return torch.from_numpy(np.asarray(found, np.float32)).to(machine.device)

    def fresh(warmed: bool) -> None:
        if teacher is None:
            return
        if warmed or width != recipe.embedding:
            rng = np.random.default_rng((recipe.seed, FIT))
            places = np.sort(rng.permutation(len(crops))[:FITTED_ON])
            student_NW = None
            if warmed:
                student = embed(network, crops.pixels_NHWC[places], pixel_scale=recipe.pixel_scale)
                student_NW = torch.from_numpy(student).to(machine.device)
            learns["target"].fit(clean(places), student_NW)
        if recipe.teacher_start and recipe.classification:
            _start_at(learns["classifier"], learns["target"], clean, crops.labels_N)

    def losses(batch: Batch) -> dict[str, Tensor]:
        inputs = as_input(batch.pixels_NHWC, machine.device, recipe.pixel_scale)
        with machine.autocast():
            embeddings_BD = stepping(inputs).float()
        named = {"loss": embeddings_BD.new_zeros(())}
        if recipe.distillation and teacher is not None:
            found = batch.answers_ND if ask else teacher[batch.indices_N]
            answers_BD = learns["target"](torch.from_numpy(found).to(machine.device))
            named["distance"] = cosine_distillation(embeddings_BD, answers_BD)
            named["loss"] = named["loss"] + recipe.distillation * named["distance"]
        if recipe.classification:
            classifier = learns["classifier"]
            labels_B = torch.from_numpy(crops.labels_N[batch.indices_N]).to(machine.device)
            if batch.mixed_N is not None:  # a mixture is nobody
                labels_B[torch.from_numpy(batch.mixed_N).to(machine.device)] = -1
            named["cross_entropy"] = classifier(embeddings_BD, labels_B)
            named["loss"] = named["loss"] + recipe.classification * named["cross_entropy"]
            if recipe.loss == "curricular":
                named["t"] = classifier.t
        return named

    found = replace(recipe, crops=len(crops), people=len(crops.people))
    return Run(
        recipe=found,
        learns=learns,
        losses=losses,
        optimizer=_optimizer(recipe, learns),
        rate=lambda step, _: rate(recipe, step),
        batches=coming(
            crops.pixels_NHWC, recipe, shares=shares, mixtures=recipe.mixtures, answer=ask
        ),
        validate=lambda: validate(network, validation, recipe.pixel_scale),
        best=_best_by(validation),
        validate_every=recipe.validate_every,
        facts={"step": machine.step, "bfloat16": machine.bfloat16},
        fresh=fresh,
    )


def network_of(recipe: Recipe) -> nn.Module:
    """The recipe's network, fresh. Raises ValueError for a name that there is not."""
    if recipe.network not in NETWORKS:
        raise ValueError(f"network {recipe.network!r} is not one of {', '.join(NETWORKS)}")
    return NETWORKS[recipe.network](recipe)


def recipe_of(round_: dict[str, Any]) -> Recipe:
    """The recipe of a kept network's round; fields that it did not have yet are as they were."""
    known = {field.name for field in fields(Recipe)}
    return Recipe(**{name: value for name, value in round_.items() if name in known})


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step in [0, steps)."""
    rise = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    fall = min(1.0, (recipe.steps - step) / recipe.decay_steps) if recipe.decay_steps else 1.0
    passed = sum(step >= milestone for milestone in recipe.milestones)
    return recipe.learning_rate * min(rise, fall) * 0.1**passed


def as_input(
    pixels_NHWC: NDArray[np.uint8], device: torch.device, pixel_scale: float = 127.5
) -> Tensor:
    """float32 (n, 3, H, W), (p - 127.5) / pixel_scale of uint8 RGB crops, channels last."""
    pixels = torch.from_numpy(pixels_NHWC).to(device).permute(0, 3, 1, 2)
    return pixels.float().sub_(127.5).div_(pixel_scale)


def embed(
    network: nn.Module, pixels_NHWC: Any, *, pixel_scale: float = 127.5, batch: int = 64
) -> NDArray[np.float32]:
    """Unit embeddings (N, D) of crops, the network in evaluation mode meanwhile.

    Raises NotFinite, naming the crop, for an embedding that is not finite."""
    modes = [(module, module.training) for module in network.modules()]
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        parts = [
            network(as_input(np.array(pixels_NHWC[i : i + batch]), device, pixel_scale)).cpu()
            for i in range(0, len(pixels_NHWC), batch)
        ]
    for module, mode in modes:
        module.training = mode
    raw = torch.cat(parts)
    require_finite(raw, "the embedding of crop")
    return F.normalize(raw).numpy()


def validate(
    network: nn.Module, validation: Crops | PairSet | None, pixel_scale: float = 127.5
) -> dict[str, float]:
    """Verification over all pairs of the crops, or in folds over the set's own pairs.

    A TAR at a FAR that the set has too few non-mated pairs for is not among the figures."""
    if validation is None:
        return {}
    embeddings = embed(network, validation.pixels_NHWC, pixel_scale=pixel_scale)
    if isinstance(validation, Crops):
        found = asdict(verification(embeddings, validation.labels_N))
        return {name: value for name, value in found.items() if value is not None}
    pairs, similarity = validation.pairs, similarities(embeddings, validation.pairs)
    figures = {"accuracy": float(ten_fold(similarity, pairs).mean())}
    if supported(1e-3, int((~pairs.same_P).sum())):
        figures["tar_at_far_1e3"] = tar_at_far(similarity, pairs.same_P, 1e-3)
    return figures


def _best_by(validation: Crops | PairSet | None) -> str | None:
    """The figure that the best network is chosen by: of few crops, TAR without a false match."""
    if validation is None:
        return None
    if isinstance(validation, PairSet):
        return "accuracy"
    enough = supported(1e-3, non_mated_pairs(validation.labels_N))
    return "tar_at_far_1e3" if enough else "tar_without_false_match"


def _classifier(recipe: Recipe, people: int) -> Classifier:
    return Classifier(
        people,
        recipe.embedding,
        loss=recipe.loss,
        scale=recipe.scale,
        margin=recipe.margin,
        alpha=recipe.alpha,
        ema=recipe.ema,
        r_with_margin=recipe.r_with_margin,
        sample=recipe.sample,
        seed=recipe.seed,
    )


def _start_at(
    classifier: Classifier,
    target: Target,
    clean: Callable[[NDArray[np.int64]], Tensor],
    labels_N: NDArray[np.int64],
) -> None:
    """Puts each class's direction at the mean target of its person's first few crops."""
    by_person = np.argsort(labels_N, kind="stable")
    by_person = by_person[labels_N[by_person] >= 0]
    _, first, count = np.unique(labels_N[by_person], return_index=True, return_counts=True)
    few = np.minimum(count, STARTED_ON)
    places = np.concatenate([by_person[i : i + n] for i, n in zip(first, few, strict=True)])
    targets_ND, owners = target(clean(places)), torch.from_numpy(labels_N[places])
    centres = targets_ND.new_zeros(classifier.classes, targets_ND.shape[1])
    centres.index_add_(0, owners.to(centres.device), targets_ND)
    with torch.no_grad():
        classifier.weight.copy_(F.normalize(centres)[classifier.first : classifier.last])


def _optimizer(recipe: Recipe, learns: nn.ModuleDict) -> torch.optim.Optimizer | MuonAndAdamW:
    of_norms = {
        id(parameter)
        for module in learns["network"].modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters()
    }
    spared = {
        "matrices": lambda parameter: parameter.ndim <= 1,
        "all but norms": lambda parameter: id(parameter) in of_norms,
        "all": lambda parameter: False,
    }[recipe.decays]
    learnt = [p for p in learns["network"].parameters() if p.requires_grad]
    classes = list(learns["classifier"].parameters()) if "classifier" in learns else []
    decay = recipe.weight_decay
    groups = [
        {"params": [p for p in learnt if not spared(p)], "share": 1.0, "weight_decay": decay},
        {"params": [p for p in learnt if spared(p)], "share": 1.0, "weight_decay": 0.0},
        {
            "params": classes,
            "share": recipe.classifier_share,
            "weight_decay": 0.0 if recipe.decays == "matrices" else decay,
        },
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    if recipe.optimizer == "muon":
        return MuonAndAdamW(groups, recipe.learning_rate, matrices(learnt))
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=0.9, nesterov=recipe.nesterov, fused=True
    )


def _sranet(depth: int, recipe: Recipe) -> SRANet:
    kinds = {name: None if name == "none" else name for name in (recipe.spatial, recipe.channel)}
    return SRANet(
        depth,
        kinds[recipe.spatial],
        kinds[recipe.channel],
        recipe.gamma,
        embedding=recipe.embedding,
    )


def _check(recipe: Recipe, crops: Crops, teacher: NDArray[np.float32] | Ask | None) -> int:
    """The width of the teacher's answers, 0 without; raises ValueError for what does not fit."""
    for name, value, allowed in (
        ("optimizer", recipe.optimizer, ("muon", "adamw", "sgd")),
        ("decays", recipe.decays, ("matrices", "all but norms", "all")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")
    if not (recipe.classification or recipe.distillation):
        raise ValueError(f"{recipe.name} has nothing to learn from: both weights are 0")
    if recipe.classification and not len(crops.people):
        raise ValueError(f"{recipe.name} learns from people, but no crop has one")
    if recipe.classification and len(crops.people) < 2:
        raise ValueError(
            f"{recipe.name} learns to tell people apart, and the set has one ({crops.people[0]}): "
            "classification needs at least two people"
        )
    if recipe.distillation and teacher is None:
        raise ValueError(f"{recipe.name} learns from a teacher, but --teacher is not given")
    if recipe.mixtures and not callable(teacher):
        raise ValueError(
            f"{recipe.name}: mixtures={recipe.mixtures:g} need teachers that are asked about the "
            "crop as it is seen: consistent=True, and a graph for a teacher"
        )
    if teacher is None:
        return 0
    if callable(teacher):
        width = teacher(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1]
        fits, shape = width >= recipe.embedding, f"{width} numbers wide"
    else:
        width, shape = teacher.shape[-1], str(teacher.shape)
        fits = teacher.ndim == 2 and len(teacher) == len(crops) and width >= recipe.embedding
    if not fits:
        raise ValueError(
            f"the teacher's answers are {shape}; {len(crops)} crops and "
            f"embedding={recipe.embedding} want {(len(crops), recipe.embedding)} or wider"
        )
    return width


def _require_side(recipe: Recipe, pixels: Pixels) -> None:
    side = SIDES.get(recipe.network, SIDE)
    if pixels.shape[1:] != (side, side, 3):
        found = " x ".join(map(str, pixels.shape[1:3]))
        raise ValueError(
            f"{recipe.name}: crops are {found} px; {recipe.network} takes {side} x {side}"
        )


def _training_sets(recipe: Recipe, sources: Sources) -> list[Crops]:
    paths, named = sources.train, _named(recipe, sources)
    if named:
        paths = tuple(sources.data / "identities" / f"{each.name}.csv" for each in named)
    absent = [path for path in paths if not path.exists()]
    wanted = f"{recipe.data or 'a set of crops'} ({_counts(recipe.crops, recipe.people)})"
    if absent or not paths:
        found = ", ".join(f"nothing at {path}" for path in absent) or "no --train"
        raise DataAbsent(
            f"{recipe.name}: expected {wanted} as .rec, folder or csv beside its zip; found {found}"
        )
    sets = [read_set(path, sources.cache) for path in paths]
    if named:
        sets = [of_training(s, each.prefix) for s, each in zip(sets, named, strict=True)]
    if len(sets) > 1:
        sets = [_own_people(crops, path) for crops, path in zip(sets, paths, strict=True)]
    if ranks.rank() == 0:
        people = len({person for crops in sets for person in crops.people})
        expected = f"; {wanted} is the paper's" if recipe.data else ""
        print(f"{recipe.name}: found {_counts(sum(map(len, sets)), people)}{expected}")
    return sets


def _own_people(crops: Crops, path: Path) -> Crops:
    """The crops, whose people are no other set's in a .rec: its numbers are its own."""
    if path.suffix != ".rec":
        return crops
    return replace(crops, people=[f"{path}, {number}" for number in crops.people])


def _counts(crops: int, people: int) -> str:
    return f"{crops:,} crops of {people:,} people" if crops else "any number"


def _named(recipe: Recipe, sources: Sources) -> list[NamedSet]:
    """The recipe's own sets; none where others are given or are to be given."""
    return [] if sources.train or recipe.data else named_sets(recipe.sets)


def _shares(recipe: Recipe, sources: Sources, sets: list[Crops]) -> list[Share]:
    """Places of each set in a batch; sets without a share divide the rest by their sizes."""
    ends = np.cumsum([0, *map(len, sets)])
    given, rest = [], []
    named = _named(recipe, sources) or [None] * len(sets)
    for each, start, end in zip(named, ends[:-1], ends[1:], strict=True):
        if each is None or each.share is None:
            rest.append(np.arange(start, end))
        elif not (size := round(each.share * recipe.batch)):
            raise ValueError(
                f"sets: {each.name}'s share of {each.share:g} is no crop of a batch of "
                f"{recipe.batch}"
            )
        else:
            given.append(Share(np.arange(start, end), size))
    left = recipe.batch - sum(share.size for share in given)
    if bool(rest) != (left > 0):
        raise ValueError(f"sets: {recipe.sets!r} leaves {left} of {recipe.batch} crops of a batch")
    return [*([Share(np.concatenate(rest), left)] if rest else []), *given]


def _teacher(
    recipe: Recipe, sources: Sources, sets: list[Crops]
) -> NDArray[np.float32] | Ask | None:
    if not recipe.distillation:
        if sources.teacher:
            raise ValueError(
                f"{recipe.name} learns from no teacher: --teacher wants --set distillation=1, say"
            )
        return None
    folder = sources.data / "teacher"
    named = [folder / f"{name}.onnx" for name in recipe.teachers.split()]
    paths = [sources.teacher] if sources.teacher else named
    if len(set(paths)) < max(1, len(paths)):
        raise ValueError(f"teachers: {recipe.teachers!r} names none, or one twice")
    if absent := next((path for path in paths if not path.exists()), None):
        raise DataAbsent(
            f"{recipe.name}: expected a teacher (.onnx or .npy); found nothing at {absent}"
        )
    if paths[0].suffix == ".npy":
        if recipe.consistent:
            raise ValueError(f"{paths[0]}: stored answers need consistent=False")
        return _stored(paths[0])
    if recipe.consistent:
        return open_teachers(paths)
    # Set by set, so that what a teacher said of one is found again beside another.
    ask = partial(teacher_embeddings, cache=sources.cache, threads=sources.threads)
    rows = [np.concatenate([ask(path, each.pixels_NHWC) for path in paths], 1) for each in sets]
    return np.concatenate(rows) / np.float32(len(paths) ** 0.5)


def _stored(path: Path) -> NDArray[np.float32]:
    try:
        stored: NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy of a teacher's answers: {error}") from error
    if stored.dtype.kind != "f":
        raise ValueError(f"{path} holds {stored.dtype}; a teacher's answers are float32")
    return stored


def validation_crops(sources: Sources) -> Crops:
    """The people by whom networks are chosen. Raises DataAbsent if they are not there."""
    path = sources.data / "identities" / "validation.csv"
    if not path.exists():
        raise DataAbsent(f"expected a validation set; found nothing at {path}")
    return read_set(path, sources.cache)


def _validation_set(recipe: Recipe, sources: Sources) -> Crops | PairSet | None:
    path = sources.validation
    if path is None and not recipe.data and not sources.train:
        path = sources.data / "identities" / "validation.csv"
    if path is None:
        return None
    if not path.exists():
        raise DataAbsent(f"{recipe.name}: expected a validation set; found nothing at {path}")
    if path.suffix == ".bin":
        return read_pair_set(f"{path.stem}={path}")
    return read_set(path, sources.cache)
