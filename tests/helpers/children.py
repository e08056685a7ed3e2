"""Child processes of the tests start at once: their host stays, and is forked when this is imported.

That has to be before anything else imports torch: a process that may have computed with it is not forked.
"""

from hpa_merge.isolation import kept

HOST = kept("hpa_merge.calibration.service:EncoderService", beginning=True)
HOST.__enter__()
