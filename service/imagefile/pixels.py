"""Decoded samples of every mode as 8-bit RGB."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImagePalette

from service.imagefile.kinds import unreadable
from service.imagefile.tiff import COLORS, TiffPage

_MODES: Final = {"I": "32 bits", "F": "floating-point samples of 32 bits"}


def rgb_of(image: Image.Image, kind: str, page: TiffPage | None) -> Image.Image:
    """The loaded image as 8-bit RGB, with what is transparent over white. page: a TIFF's."""
    if image.mode in _MODES:
        raise unreadable(f"its pixels have {_MODES[image.mode]}; 8 and 16 are accepted")
    if image.mode.startswith("I;16"):
        return _from_deep_grey(image, page)
    if image.mode == "La":  # grey that is multiplied by its alpha
        grey, alpha = (np.asarray(band, np.uint16) for band in image.split())
        return Image.fromarray(np.minimum(grey + 255 - alpha, 255).astype(np.uint8)).convert("RGB")
    if page is not None and page.is_inverted:
        image = ImageChops.invert(image)
    if image.has_transparency_data and not _has_blank_alpha(image, kind):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def mend_palette(image: Image.Image, page: TiffPage) -> None:
    """Give an opened TIFF its palette's colors if they have 8 bits, where the format asks for 16.

    Old programs write them so; libtiff and viewers tell them by there being none over 255.
    """
    colors = page.tags.get(COLORS, ())
    if image.mode in ("P", "PA") and colors and max(colors) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colors))


def _from_deep_grey(image: Image.Image, page: TiffPage | None) -> Image.Image:
    samples = np.asarray(image).astype(np.uint32)
    most = 4095 if page is not None and page.bits == 12 else 65535
    levels: NDArray[np.uint8] = ((samples * 255 + most // 2) // most).clip(0, 255).astype(np.uint8)
    if page is not None and page.is_inverted:
        levels = 255 - levels
    if isinstance(clear := image.info.get("transparency"), int):
        levels[samples == clear] = 255
    return Image.fromarray(levels).convert("RGB")


def _has_blank_alpha(image: Image.Image, kind: str) -> bool:
    """True if the file has an alpha that is zero everywhere, which viewers take for none.

    Programs write so into the fourth byte of BMP's and TIFF's pixels, which once meant nothing.
    """
    return (
        kind in ("BMP", "TIFF")
        and image.mode in ("RGBA", "LA")
        and image.getchannel("A").getbbox() is None
    )
