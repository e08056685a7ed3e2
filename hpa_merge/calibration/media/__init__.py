"""Files of images become what processors take; each is opened by a library that we do not control.

Read in this order: :mod:`pixels` (an image of any mode becomes 8-bit RGB), :mod:`images` (the images of a sample).
Everything here runs in a child process with limits.
"""

from hpa_merge.calibration.media.images import open_images

__all__ = ["open_images"]
