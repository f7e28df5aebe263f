"""Photographs out of image files: the one home of Pillow and pillow-heif."""

from service.vision.faces import Photograph


def read_photograph(data: bytes, *, max_bytes: int, max_pixels: int) -> Photograph:
    """The upright photograph in an image file's bytes; an ImageError (service/errors.py) else."""
    raise NotImplementedError
