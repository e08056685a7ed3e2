"""``python -m hpa_merge`` is ``hpa-merge``."""

from hpa_merge.cli import main

main()
