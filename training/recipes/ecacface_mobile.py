"""ecacface-mobile: ECACFace on MobileFaceNet, distilled, with CurricularFace on the labelled crops.

The paper's own recipe for this network (CASIA-WebFace, from labels alone) is SGD momentum 0.9,
weight decay 5e-4, s = 64, m = 0.5, alpha = 0.99, rate divided by ten at epochs 28, 38 and 46 of 50;
its Table 5:

| CASIA-trained          | LFW   | CFP-FP | AgeDB | CPLFW | CALFW |
| MobileFaceNet, ArcFace | 98.50 | 89.94  | 89.36 | 83.90 | 91.09 |
| ECACFace_Mob           | 98.76 | 91.67  | 90.36 | 85.08 | 91.33 |

Here 1,041 people would not carry that far, so most of the loss is the distance to a teacher's
answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    The rate rises over warmup_steps, stays, and falls linearly to zero over the last decay_steps: a
    run can be prolonged from the state it had before it fell. margin_weight multiplies
    CurricularFace's cross-entropy divided by s, whose gradient by a cosine is of the order of
    distillation's."""

    name: str = "ecacface-mobile"
    attention: str = "esca"
    embedding: int = 512
    batch: int = 64
    steps: int = 4000
    warmup_steps: int = 100
    decay_steps: int = 1000
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.02
    scale: float = 64.0
    margin_rad: float = 0.5
    alpha: float = 0.99
    margin_weight: float = 0.5
    seed: int = 1


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step in [0, steps)."""
    rise = min(1.0, (step + 1) / recipe.warmup_steps)
    fall = min(1.0, (recipe.steps - step) / recipe.decay_steps)
    return recipe.learning_rate * min(rise, fall)
