"""Losses as pure functions of cosines; nothing here is scaled but by what is passed in.

cosines_BC: (B, C) in [-1, 1], of B embeddings to C class directions; labels_B: (B,) int64 in [0,
C). No function changes its arguments."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def cosines(embeddings_BD: Tensor, weights_CD: Tensor) -> Tensor:
    """cosines_BC between rows, clamped to [-1, 1]; float32 even under autocast."""
    with torch.autocast(embeddings_BD.device.type, enabled=False):
        directions = F.normalize(weights_CD.float())
        return (F.normalize(embeddings_BD.float()) @ directions.t()).clamp(-1, 1)


def cosine_distillation(embeddings_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1 - the mean cosine between a student's embeddings and the teacher's; a scalar in [0, 2]."""
    return 1 - F.cosine_similarity(embeddings_BD.float(), teacher_BD).mean()


def with_angular_margin(true_B: Tensor, margin_rad: float) -> Tensor:
    """cos(theta + m) of cos theta (ArcFace, arXiv:1801.07698, equation 3).

    Beyond theta = pi - m, where cos(theta + m) would rise again, cos theta - m sin m takes over, as
    in the published code of ArcFace and CurricularFace."""
    sine = torch.sqrt((1 - true_B.square()).clamp_min(1e-12))
    moved = true_B * math.cos(margin_rad) - sine * math.sin(margin_rad)
    linear = true_B - margin_rad * math.sin(margin_rad)
    return torch.where(true_B > -math.cos(margin_rad), moved, linear)


def curricular_cosines(
    cosines_BC: Tensor, labels_B: Tensor, t: Tensor, *, margin_rad: float = 0.5
) -> Tensor:
    """Cosines with cos(theta_y + m) in the true class and c (t + c) in the hard others.

    CurricularFace (arXiv:2004.00288) as ECACFace restates it in equations 3 and 4: class j != y is
    hard where c_j > cos(theta_y + m), the raw value. t: a scalar, the curriculum's state; no
    gradient."""
    true_B1 = cosines_BC.gather(1, labels_B[:, None])
    sine = torch.sqrt((1 - true_B1.square()).clamp_min(1e-12))
    border = true_B1 * math.cos(margin_rad) - sine * math.sin(margin_rad)
    hard = cosines_BC > border.detach()
    changed = torch.where(hard, cosines_BC * (t.detach() + cosines_BC), cosines_BC)
    return changed.scatter(1, labels_B[:, None], with_angular_margin(true_B1, margin_rad))


def curricular_t(t: Tensor, cosines_BC: Tensor, labels_B: Tensor, *, alpha: float = 0.99) -> Tensor:
    """The next t = alpha t + (1 - alpha) r, r the batch's mean cos theta_y; taken before t is used.

    The direction is that of CurricularFace's published code. ECACFace's equation 5 weighs the
    newest batch with alpha instead, which for alpha = 0.99 is hardly an average."""
    r = cosines_BC.detach().gather(1, labels_B[:, None]).mean()
    return alpha * t + (1 - alpha) * r
