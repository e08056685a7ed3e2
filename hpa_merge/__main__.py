"""``hpa-merge`` and ``python -m hpa_merge``, also for the processes of ``--nproc``."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the caller ignores it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then main() tells of it

from hpa_merge.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
