"""That this file is here puts its folder on the path, so that tests share `small_networks`."""

import os

# Two processes run the tests (`-n 2`), one thread each: networks this small are no faster on two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing that a test computes comes from the user's own cache or goes into it.
os.environ["TRACESIGHT_CACHE"] = "off"
