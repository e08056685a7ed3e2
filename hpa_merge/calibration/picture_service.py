"""What runs in the child process that opens the images of test files for an endpoint."""

import io
from typing import final

from hpa_merge.calibration.media import open_images
from hpa_merge.records import Sample

__all__ = ["PictureService"]


@final
class PictureService:
    """The method that :class:`hpa_merge.calibration.pictures.PictureProcess` calls."""

    def encode(self, sample: Sample) -> tuple[list[int], bytes]:
        """The images of a sample as PNG, one after the other, and the bytes of each; raises as ``open_images``."""
        made = []
        for image in open_images(sample):
            content = io.BytesIO()
            image.save(content, "PNG")
            made.append(content.getvalue())
        return [len(content) for content in made], b"".join(made)
