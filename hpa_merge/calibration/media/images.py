"""The images of a sample, opened with care: local files of known formats, of bounded size, upright, in RGB."""

import io
import math
import warnings
from contextlib import suppress
from itertools import count

from PIL import Image, ImageOps, UnidentifiedImageError

from hpa_merge.calibration.loading import reason
from hpa_merge.calibration.media.pixels import as_rgb
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample

__all__ = ["open_images"]

IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened: photographs and pictures; none of Pillow's formats that call another program (EPS, WMF)."""

TIFF_KIND = 254
"""The tag that says what a page is."""

TIFF_PREVIEW, TIFF_MASK = 1, 4
"""Its bits for what belongs to another page."""

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
            with Image.open(file, formats=_formats()) as image:
                if max(image.size) > LONGEST_SIDE * min(image.size):  # processors give the short side a fixed length
                    raise ValueError(f"it is more than {LONGEST_SIDE} times as long as wide")
                _check_single(image)
                ImageOps.exif_transpose(image, in_place=True)
                return as_rgb(image)
    except UnidentifiedImageError:
        raise CalibrationError(
            f"{source}: the image {media.name} cannot be read (it is none of {', '.join(_formats())}, or of a kind of "
            "these that Pillow does not know): replace it or remove the sample."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise CalibrationError(
            f"{source}: the image {media.name} has more than {Image.MAX_IMAGE_PIXELS} pixels: use a smaller one."
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever the bytes provoke
        raise CalibrationError(
            f"{source}: the image {media.name} cannot be read ({reason(error)}): replace it or remove the sample."
        ) from error


def _formats() -> list[str]:
    """Those of :data:`IMAGE_FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def _check_single(image: Image.Image) -> None:
    """Check that the file holds one picture; a second one of the same shot, as phones write it (MPO), is passed over.

    Raises:
        ValueError: it is animated, or its pages are not one picture with previews and masks behind it.
    """
    if image.format == "TIFF":
        with suppress(EOFError):
            for page in count():
                image.seek(page)
                kind = image.tag_v2.get(TIFF_KIND, 0)  # type: ignore[attr-defined]
                if bool(page) != bool(kind & (TIFF_PREVIEW | TIFF_MASK)):
                    raise ValueError("it has several pages, or begins with a preview: save the one that is meant")
        image.seek(0)
    elif image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("it is animated: give it as a video, or save the frame that is meant")
