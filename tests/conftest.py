"""That this file is here puts its folder on the path, so that tests share `small_networks`."""

import os
import signal

# Two processes run the tests (`-n 2`), one thread each: networks this small are no faster on two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing that a test computes comes from the user's own cache or goes into it.
os.environ["TRACESIGHT_CACHE"] = "off"
# Ctrl-C does in the tests what it does in a terminal. A job in a shell's background ignores it, and so would every
# process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
