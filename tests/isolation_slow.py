"""A service whose import does not come to an end; for test_isolation.py."""

import time

time.sleep(10**6)
