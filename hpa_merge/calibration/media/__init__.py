"""Files of images, videos and sounds become what processors take; each is opened by a library that we do not control.

Read in this order: :mod:`pixels` (an image of any mode becomes 8-bit RGB), :mod:`images` (the images of a sample),
:mod:`containers` (files of video and audio, opened with PyAV), :mod:`video` (some frames of a video), :mod:`audio` (a
sound of one channel), :mod:`opening` (all media of a sample, for a processor). Everything here runs in a child process
with limits.
"""

from hpa_merge.calibration.media.images import open_images
from hpa_merge.calibration.media.opening import Opened, open_media, processor_arguments

__all__ = ["Opened", "open_images", "open_media", "processor_arguments"]
