"""The images of a sample, opened with care: local files of known formats, of bounded size, upright, in RGB."""

import io
import math
import warnings

from PIL import Image, ImageOps

from hpa_merge.calibration.loading import reason
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample

__all__ = ["open_images"]

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened: photographs and pictures; none of Pillow's formats that call another program (EPS, WMF)."""

LONGEST_SIDE = 200
"""The long side of an image over its short one, at most, as Qwen's image processors have it."""


def open_images(sample: Sample) -> list[Image.Image]:
    """The images of a sample, as :func:`_open_image` opens each.

    Raises:
        CalibrationError: one of them cannot be used, or they are too large together.
    """
    images: list[Image.Image] = []
    for media in sample.images:
        images.append(_open_image(media, sample.source))
        if sum(image.width * image.height for image in images) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise CalibrationError(
                f"{sample.source}: its images have more than {Image.MAX_IMAGE_PIXELS} pixels together: "
                "use fewer or smaller ones."
            )
    return images


def _open_image(media: Media, source: str) -> Image.Image:
    """The image in RGB, turned upright as its EXIF says.

    Raises:
        CalibrationError: it is gone, is not an image that Pillow can read, or is larger than Pillow's guard allows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(media.content) if isinstance(media.content, bytes) else media.content
            with Image.open(file, formats=IMAGE_FORMATS) as image:
                if max(image.size) > LONGEST_SIDE * min(image.size):  # processors give the short side a fixed length
                    raise ValueError(f"it is more than {LONGEST_SIDE} times as long as wide")
                return ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise CalibrationError(
            f"{source}: the image {media.name} has more than {Image.MAX_IMAGE_PIXELS} pixels: use a smaller one."
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever the bytes provoke
        raise CalibrationError(
            f"{source}: the image {media.name} cannot be read ({reason(error)}): replace it or remove the sample."
        ) from error
