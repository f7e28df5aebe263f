"""facenet-pytorch's MTCNN beside a torch that its pins forbid.

    pip install --no-deps --target runs/peers facenet-pytorch==2.6.0

Of torchvision, which the package imports, detection uses batched_nms alone. A stand-in takes its
place: numpy in torchvision's arithmetic (float32, stable order, no +1). It is slower than
torchvision's C++, so its time is counted apart, and a comparison may take it off.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

INSTALL = "pip install --no-deps --target runs/peers facenet-pytorch==2.6.0"
FOLDER = Path(__file__).parents[2] / "runs" / "peers"


class NonMaximumSuppression:
    """torchvision.ops.boxes.batched_nms for one image; seconds: what its calls took in all."""

    seconds = 0.0

    def __call__(
        self, boxes: torch.Tensor, scores: torch.Tensor, images: torch.Tensor, limit: float
    ) -> torch.Tensor:
        start = time.perf_counter()
        assert not images.any(), "the stand-in knows one image"
        kept = _kept(boxes.numpy(), scores.numpy(), np.float32(limit))
        self.seconds += time.perf_counter() - start
        return torch.from_numpy(kept)


def load_mtcnn() -> tuple[Callable[..., Any], NonMaximumSuppression]:
    """The class MTCNN, and the stand-in that counts its time. SystemExit where it is missing."""
    if not (FOLDER / "facenet_pytorch").is_dir():
        raise SystemExit(f"the peer is missing; {INSTALL}")
    suppression = NonMaximumSuppression()
    _stand_in("torchvision")
    _stand_in("torchvision.transforms", functional=_stand_in("torchvision.transforms.functional"))
    _stand_in("torchvision.ops")
    _stand_in("torchvision.ops.boxes", batched_nms=suppression)
    sys.path.insert(0, str(FOLDER))
    from facenet_pytorch.models.mtcnn import MTCNN  # type: ignore[import-not-found]

    return MTCNN, suppression


def _stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


def _kept(boxes: Any, scores: Any, limit: np.float32) -> Any:
    order, kept = np.argsort(-scores, kind="stable"), []
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1) * (y2 - y1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
        height = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        order = order[~(shared / (area[best] + area[order] - shared) > limit)]
    return np.array(kept, np.int64)
