"""Recipes of attributes: MZTS on CelebA.

MZTS's paper is known by its abstract, which tells no figure and no setting: the settings are those
of our design, and there is nothing to compare with. LFWA is not read."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    size to memory: MZTS's. size: (height, width) that crops are scaled to cover and cut to. stem:
    what makes tokens of an image, "patches" or "mobilenet" (ImageNet's, of patch 16: ViT's hybrid
    form), which then learns with the rest, at stem_share of its rate. supervise to teacher:
    mzts.self_distillation's; one zone has none of them. mixup: alpha of Beta(alpha, alpha), the
    share in which each image is mixed with another of its batch, labels too; 0 mixes none.

    optimizer: adamw, or muon for the network's matrices but its heads', and AdamW for the rest.
    learning_rate is that of the batch: SEEDS' form is 5e-4 batch / 512. The rate rises over
    warmup_epochs and falls along a cosine over the share `decay` of the steps. average: decay of
    the running mean of weights that is validated and kept; 0 keeps the weights themselves. clip:
    of the gradient's norm, 0 for none. steps, decay_steps and validate_every: 0 takes them from
    epochs. augmentation: a level of data/augment.py. best: the figure of the validation part by
    which the best is kept. faces: in a run, how many were learnt from."""

    name: str
    size: tuple[int, ...] = (128, 112)
    patch: int = 16
    width: str = "tiny"
    depth: int = 12
    zones: int = 3
    memory: str = "cls"
    stem: str = "patches"
    stem_share: float = 0.2
    supervise: bool = True
    beta: float = 0.5
    tau: float = 2.0
    lam: float = 0.1
    teacher: str = "last"
    mixup: float = 0.2
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    clip: float = 1.0
    batch: int = 64
    epochs: int = 100
    steps: int = 0
    warmup_epochs: float = 5.0
    decay: float = 1.0
    decay_steps: int = 0
    average: float = 0.999
    augmentation: str = "strong"
    best: str = "score"
    validate_every: int = 0
    seed: int = 1
    faces: int = 0


def mzts() -> Recipe:
    """MZTS for two cores and few images: three zones that distil themselves.

    56 tokens: the service's wide crop of 136 x 112 without four rows above and below, in patches of
    16; 238 in patches of 8 (`--set size=136,112 patch=8`) cost more than four times as much. 6,469
    images are few for a transformer from fresh weights, hence mixup, strong augmentation and many
    epochs."""
    return Recipe(name="mzts")


def mzts_zones() -> Recipe:
    """The ablation's middle: as mzts, the zones interacting, the last alone learning from the
    labels; nothing is distilled."""
    return _undistilled(replace(mzts(), name="mzts-zones"))


def mzts_plain() -> Recipe:
    """The ablation's start: as mzts, one zone, which is a plain vision transformer."""
    return _undistilled(replace(mzts(), name="mzts-plain", zones=1))


def mzts_hybrid() -> Recipe:
    """As mzts, its tokens from ImageNet's MobileNetV1 in place of patches: the hybrid of ViT
    (arXiv:2010.11929, section 3.1), for images too few to learn edges from. Half as deep: behind
    such a stem less is left to do, and what ships is to be 18 MB and not 28.

    The stem learns as fast as the rest, which learns by Muon: with a fifth of the rate and AdamW
    thirty epochs did not bring what these bring in three, and glasses and hats were never learnt.
    """
    return replace(
        mzts(),
        name="mzts-hybrid",
        stem="mobilenet",
        stem_share=1.0,
        depth=6,
        optimizer="muon",
        learning_rate=1e-3,
        epochs=20,
        warmup_epochs=0.5,
        average=0.998,
        augmentation="mild",
    )


def mzts_celeba() -> Recipe:
    """Our design on CelebA's own files (162,770 images for training): DeiT-S in three zones at 224
    pixels, AdamW, 30 epochs.

    Without zones: `--set zones=1`; without distillation: `--set supervise=False beta=0 lam=0`; its
    terms one by one likewise."""
    return Recipe(
        name="mzts-celeba",
        size=(224, 224),
        width="small",
        mixup=0.0,
        learning_rate=5e-4 * 256 / 512,
        clip=0.0,
        batch=256,
        epochs=30,
        average=0.0,
        augmentation="cropped",
    )


def _undistilled(recipe: Recipe) -> Recipe:
    return replace(recipe, supervise=False, beta=0.0, lam=0.0)


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe().name: recipe for recipe in (mzts, mzts_zones, mzts_plain, mzts_hybrid, mzts_celeba)
}
