"""Made-up people: embeddings that lie around a direction a person."""

import numpy as np


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around a direction a person."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    rows = rng.normal(size=(count, 32))[labels] + spread * rng.normal(size=(count * each, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels
