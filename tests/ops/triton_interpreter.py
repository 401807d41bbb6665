"""Whether Triton's interpreter runs at all here: that of Triton 3.6 does not with numpy 2.4 and later."""

from __future__ import annotations

import functools
import os
import subprocess
import sys


@functools.cache
def interpreter_works() -> bool:
    """Whether a loop to a number that a kernel is given can be interpreted."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    return subprocess.run([sys.executable, __file__], env=environment, capture_output=True).returncode == 0


if __name__ == "__main__":
    import torch
    import triton
    import triton.language as tl

    @triton.jit
    def count(out, steps):
        total = 0
        for _ in range(0, steps):
            total += 1
        tl.store(out, total)

    result = torch.zeros(1, dtype=torch.int32)
    count[(1,)](result, 3)
    sys.exit(0 if result.item() == 3 else 1)
