"""Losses as pure functions of cosines; nothing here is scaled but by what is passed in.

cosines_BC: (B, C) in [-1, 1], of B embeddings to C class directions; labels_B: (B,) int64 in [0,
C). No function changes its arguments.

The C classes may also be one rank's part of them (sharded.py). labels_B then counts from that
part's first class and is -1 in a row whose class lies elsewhere; true_B (B,), every row's cosine to
its own class, comes from the rank that has it. It decides which other classes are hard, without a
gradient; left out, it is read from cosines_BC, where every row must have its class."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# The losses of cosines by name, each with the margin of its paper: SphereFace's multiplies the
# angle, CosFace's is a cosine, the others are radians.
MARGINS: dict[str, float | None] = {
    "softmax": None,
    "sphereface": 4,
    "cosface": 0.35,
    "arcface": 0.5,
    "mv_arc": 0.5,
    "mv_arc_fixed": 0.5,
    "curricular": 0.5,
}
EMAS = ("code", "paper")  # curricular_t's


def cosines(embeddings_BD: Tensor, weights_CD: Tensor) -> Tensor:
    """cosines_BC between rows, clamped to [-1, 1]; float32 even under autocast."""
    with torch.autocast(embeddings_BD.device.type, enabled=False):
        directions = F.normalize(weights_CD.float())
        return (F.normalize(embeddings_BD.float()) @ directions.t()).clamp(-1, 1)


def true_cosines(cosines_BC: Tensor, labels_B: Tensor) -> Tensor:
    """(B,) what stands in each row's own column; 0 in a row whose label is -1."""
    row, own = _own(labels_B)
    return cosines_BC.new_zeros(len(labels_B)).index_put((row,), cosines_BC[row, own])


def cosine_distillation(embeddings_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1 - the mean cosine between a student's embeddings and the teacher's; a scalar in [0, 2]."""
    return 1 - F.cosine_similarity(embeddings_BD.float(), teacher_BD).mean()


def changed_cosines(
    loss: str,
    cosines_BC: Tensor,
    labels_B: Tensor,
    *,
    margin: float | None,
    t: Tensor,
    step: int,
    true_B: Tensor | None = None,
) -> Tensor:
    """The cosines as the named loss of MARGINS changes them; their scaled softmax is the loss.

    t: CurricularFace's state. step: from 0, SphereFace's annealing goes by it. Raises ValueError
    for a loss that is not in MARGINS."""
    match loss:
        case "softmax":  # normalised, without a margin
            return cosines_BC
        case "sphereface":
            annealing = sphereface_annealing(step)
            return sphereface_cosines(cosines_BC, labels_B, margin=margin, annealing=annealing)
        case "cosface":
            return cosface_cosines(cosines_BC, labels_B, margin=margin)
        case "arcface":
            return arcface_cosines(cosines_BC, labels_B, margin_rad=margin)
        case "mv_arc" | "mv_arc_fixed":
            adaptive = loss == "mv_arc"
            return mv_arc_cosines(
                cosines_BC, labels_B, margin_rad=margin, adaptive=adaptive, true_B=true_B
            )
        case "curricular":
            return curricular_cosines(cosines_BC, labels_B, t, margin_rad=margin, true_B=true_B)
    raise ValueError(f"loss {loss!r} is not one of {', '.join(MARGINS)}")


def sphereface_psi(true_B: Tensor, margin: float) -> Tensor:
    """psi = (-1)^k cos(m theta) - 2k of cos theta, for theta in [k pi/m, (k+1) pi/m].

    It falls from 1 at theta = 0 to 1 - 2m at pi (A-Softmax, arXiv:1704.08063). m = margin is a
    whole number from 1 on, else ValueError; cos(m theta) is then Chebyshev's polynomial of the
    cosine, whose slope is finite everywhere."""
    if margin < 1 or margin != int(margin):
        raise ValueError(f"SphereFace's margin is {margin}; it must be a whole number from 1 on")
    before, multiple = torch.ones_like(true_B), true_B
    for _ in range(int(margin) - 1):
        before, multiple = multiple, 2 * true_B * multiple - before
    k = torch.zeros_like(true_B)
    for j in range(1, int(margin)):
        k = k + (true_B <= math.cos(j * math.pi / margin))
    return (1 - 2 * (k % 2)) * multiple - 2 * k


def sphereface_cosines(
    cosines_BC: Tensor, labels_B: Tensor, *, margin: float = 4, annealing: float = 0.0
) -> Tensor:
    """Cosines with (lambda cos theta + psi) / (1 + lambda) in the true class, lambda = annealing.

    A-Softmax (arXiv:1704.08063): lambda = 0 is the paper's equation, sphereface_annealing the
    published training's. There the class directions alone have length one: a row is multiplied by
    its embedding's length. SphereFace "re-implemented with s", as later papers' tables compare it,
    multiplies by one s instead, which the caller does for every loss here."""
    row, own = _own(labels_B)
    true_B = cosines_BC[row, own]
    moved = (annealing * true_B + sphereface_psi(true_B, margin)) / (1 + annealing)
    return cosines_BC.index_put((row, own), moved)


def sphereface_annealing(step: int) -> float:
    """lambda = max(5, 1000 / (1 + 0.12 (step + 1))) of a step from 0 on.

    The numbers are those of SphereFace's published training (base 1000, gamma 0.12, power 1,
    lambda_min 5; its layer counts before it computes). The margin never acts in full: at the end
    psi has a sixth of the weight."""
    return max(5.0, 1000.0 / (1 + 0.12 * (step + 1)))


def cosface_cosines(cosines_BC: Tensor, labels_B: Tensor, *, margin: float = 0.35) -> Tensor:
    """Cosines with cos theta_y - m in the true class (CosFace, arXiv:1801.09414)."""
    row, own = _own(labels_B)
    return cosines_BC.index_put((row, own), cosines_BC[row, own] - margin)


def arcface_cosines(cosines_BC: Tensor, labels_B: Tensor, *, margin_rad: float = 0.5) -> Tensor:
    """Cosines with cos(theta_y + m) in the true class (ArcFace, arXiv:1801.07698, equation 3)."""
    row, own = _own(labels_B)
    return cosines_BC.index_put((row, own), with_angular_margin(cosines_BC[row, own], margin_rad))


def with_angular_margin(true_B: Tensor, margin_rad: float) -> Tensor:
    """cos(theta + m) of cos theta (ArcFace, arXiv:1801.07698, equation 3).

    Beyond theta = pi - m, where cos(theta + m) would rise again, cos theta - m sin m takes over, as
    in the published code of ArcFace and CurricularFace."""
    linear = true_B - margin_rad * math.sin(margin_rad)
    return torch.where(true_B > -math.cos(margin_rad), _turned(true_B, margin_rad), linear)


def mv_arc_cosines(
    cosines_BC: Tensor,
    labels_B: Tensor,
    *,
    t: float = 0.2,
    margin_rad: float = 0.5,
    adaptive: bool = True,
    true_B: Tensor | None = None,
) -> Tensor:
    """Cosines with cos(theta_y + m) in the true class and raised ones in the hard others.

    MV-Arc-Softmax (arXiv:1912.00833): class j != y is hard where c_j > cos(theta_y + m); it becomes
    (1 + t) c_j + t, or c_j + t where not adaptive. As in its published code, the true class keeps
    its cosine where that is not above 0."""
    border_B = _turned(_detached(true_B, cosines_BC, labels_B), margin_rad)
    raised = (1 + t) * cosines_BC + t if adaptive else cosines_BC + t
    changed = torch.where(cosines_BC > border_B[:, None], raised, cosines_BC)
    row, own = _own(labels_B)
    here = cosines_BC[row, own]
    return changed.index_put((row, own), torch.where(here > 0, _turned(here, margin_rad), here))


def curricular_cosines(
    cosines_BC: Tensor,
    labels_B: Tensor,
    t: Tensor,
    *,
    margin_rad: float = 0.5,
    true_B: Tensor | None = None,
) -> Tensor:
    """Cosines with cos(theta_y + m) in the true class and c (t + c) in the hard others.

    CurricularFace (arXiv:2004.00288) as ECACFace restates it in equations 3 and 4: class j != y is
    hard where c_j > cos(theta_y + m), the raw value. t: a scalar, the curriculum's state; no
    gradient."""
    border_B = _turned(_detached(true_B, cosines_BC, labels_B), margin_rad)
    hard = cosines_BC > border_B[:, None]
    changed = torch.where(hard, cosines_BC * (t.detach() + cosines_BC), cosines_BC)
    row, own = _own(labels_B)
    return changed.index_put((row, own), with_angular_margin(cosines_BC[row, own], margin_rad))


def curricular_t(
    t: Tensor,
    cosines_BC: Tensor,
    labels_B: Tensor,
    *,
    alpha: float = 0.99,
    ema: str = "code",
    r_with_margin: bool = False,
    margin_rad: float = 0.5,
    true_B: Tensor | None = None,
) -> Tensor:
    """The next t = alpha t + (1 - alpha) r, r the batch's mean cos theta_y; taken before t is used.

    The direction is that of CurricularFace's published code. ema="paper" is ECACFace's equation 5,
    alpha r + (1 - alpha) t, which for alpha = 0.99 is hardly an average; r_with_margin its equation
    6, the mean of cos(theta_y + m). Raises ValueError for any other ema."""
    if ema not in EMAS:
        raise ValueError(f"ema {ema!r} is not one of {', '.join(EMAS)}")
    true_B = _detached(true_B, cosines_BC, labels_B)
    r = (_turned(true_B, margin_rad) if r_with_margin else true_B).mean()
    return alpha * t + (1 - alpha) * r if ema == "code" else alpha * r + (1 - alpha) * t


def _own(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) of the true classes that are among the cosines'."""
    row = (labels_B >= 0).nonzero()[:, 0]
    return row, labels_B[row]


def _turned(true_B: Tensor, margin_rad: float) -> Tensor:
    """cos(theta + m) of cos theta; the sine is held off 0, where its slope has no end."""
    sine = torch.sqrt((1 - true_B.square()).clamp_min(1e-12))
    return true_B * math.cos(margin_rad) - sine * math.sin(margin_rad)


def _detached(true_B: Tensor | None, cosines_BC: Tensor, labels_B: Tensor) -> Tensor:
    return (true_cosines(cosines_BC, labels_B) if true_B is None else true_B).detach()
