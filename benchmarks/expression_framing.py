"""How a face lies in an image of FERPlus: where our detector finds its five landmarks, on average.

    python -m benchmarks.expression_framing [--data ../shared/data/ferplus] [--images 1000]

Images of the training part, evenly spread over it, get a grey margin, since the detector looks for
whole heads and these are cut close, and are enlarged four times, since it looks for no face as
small; the largest face found counts. A face and its mirror image count alike, as they do in
training. Prints mean, median and spread in pixels of the 48 x 48 image; the means are
EXPRESSION_CANVAS of service/vision/align.py.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Photograph
from training.data.fer import SIDE_PX, read_ferplus
from training.detector import open_detector

TIMES = 4
MARGIN_PX = 24
SMALLEST_FACE_PX = 100  # of the enlarged image: 25 of the image itself
MIRRORED = [1, 0, 2, 4, 3]  # which landmark is which in the mirror
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def landmarks_in(image: NDArray[np.uint8], cascade: Cascade) -> NDArray[np.float64] | None:
    """(5, 2), (x, y) in pixels of the grey image, origin at the centre of its top left pixel; None
    where no face is found."""
    margins, grey = [MARGIN_PX] * 4, round(float(image.mean()))
    framed = cv2.copyMakeBorder(image, *margins, cv2.BORDER_CONSTANT, value=grey)
    large = cv2.resize(framed, None, fx=TIMES, fy=TIMES, interpolation=cv2.INTER_CUBIC)
    photograph = Photograph(np.repeat(large[..., None], 3, axis=2))
    faces = detect_faces(photograph, cascade, min_face_px=SMALLEST_FACE_PX)
    if not faces:
        return None
    return (faces[0].landmarks_52.astype(np.float64) + 0.5) / TIMES - 0.5 - MARGIN_PX


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ferplus"))
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    faces, cascade = read_ferplus(given.data), open_detector()
    of_training = np.flatnonzero(faces.split_N == "train")
    taken = of_training[np.linspace(0, len(of_training) - 1, given.images).round().astype(int)]
    seen = [landmarks_in(faces.pixels[int(i)], cascade) for i in taken]
    found_N52 = np.stack([landmarks_52 for landmarks_52 in seen if landmarks_52 is not None])
    print(f"{len(found_N52)} faces found in {len(taken)} images of {SIDE_PX} x {SIDE_PX} px\n")
    mirrored_N52 = (found_N52 * (-1, 1) + (SIDE_PX - 1, 0))[:, MIRRORED]
    found_N52 = np.concatenate([found_N52, mirrored_N52])
    print("| landmark | mean x, y | median x, y | standard deviation |\n|---|---|---|---|")
    for name, points in zip(LANDMARKS, found_N52.transpose(1, 0, 2), strict=True):
        columns = (points.mean(axis=0), np.median(points, axis=0), points.std(axis=0))
        print(f"| {name} | " + " | ".join(f"{x:.2f}, {y:.2f}" for x, y in columns) + " |")


if __name__ == "__main__":
    main()
