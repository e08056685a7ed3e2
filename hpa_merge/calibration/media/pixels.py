"""An image of any of Pillow's modes becomes 8-bit RGB, as a viewer shows it.

What ``convert("RGB")`` of Pillow gets wrong is computed here: it cuts numbers of more than 8 bits off at 255, shows the
colours that are hidden under transparent pixels, and cannot convert Lab. What cannot be shown without a guess is
refused.

Transparency lies on white, as viewers, vLLM, Qwen's loader and the image processors of Idefics and Llama 3.2 Vision
have it. Colour profiles are not applied, because no processor applies them: CMYK becomes RGB by Pillow's formula.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

__all__ = ["as_rgb"]

WHITE = 255

TIFF_BITS, TIFF_ZERO = 258, 262
"""Tags: how many bits a number of a pixel has; whether 0 is white (0) or black (1)."""


def as_rgb(image: Image.Image) -> Image.Image:
    """The first frame in RGB.

    Raises:
        ValueError: the file does not say which of its numbers is white.
        Exception: whatever Pillow's decoders raise.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")  # type: ignore[return-value]  # not in place
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, (WHITE,) * 4), colours).convert("RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Numbers of more than 8 bits, ``[h, w]``, in proportion: the largest one that the format has becomes white."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):  # also where one is not a number
            raise ValueError(
                f"its pixels are fractions from {low:g} to {high:g}, and only those from 0 to 1 have a known white: "
                "save it with 8 bits"
            )
        grey = np.rint(values * np.float32(WHITE)).astype(np.uint8)
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have 16 bits in it
        raise ValueError(
            "its pixels are whole numbers of 32 bits or with a sign, of no known white: save it with 8 bits"
        )
    else:
        most = 2 ** _bits(image) - 1
        grey = ((values.astype(np.uint32) * WHITE + most // 2) // most).clip(max=WHITE).astype(np.uint8)
    if _tag(image, TIFF_ZERO, 1) == 0:
        grey = WHITE - grey
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = WHITE
    return grey


def _bits(image: Image.Image) -> int:
    """Of each number."""
    return int(_tag(image, TIFF_BITS, 16))


def _tag(image: Image.Image, number: int, default: int) -> int:
    """A tag of a TIFF that holds one number; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
