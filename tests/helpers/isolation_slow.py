"""A service whose import does not come to an end; for isolation/test_child.py."""

import time

time.sleep(10**6)
