"""``python -m hpa_merge`` is ``hpa-merge``, also for the processes of ``--nproc``."""

import os
import signal

from hpa_merge.launch.environment import started_here

if started_here(os.environ):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process that has started this one tells of Ctrl-C

from hpa_merge.cli import main

main()
