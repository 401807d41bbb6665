"""Both forms of attention in turn, forward and backward, of few and many tokens: time of "fused" over "plain".

    python benchmarks/attention.py [--threads 1] [--rounds 7] [--dtype bfloat16] [--json FILE]

Heads of 64, as ViT-B has 12 of them. 50 tokens: what MAE's encoder sees of 224 × 224; 197: all of it; 577: of
384 × 384; 1025: of 512 × 512. Both must agree to 1e-4 (bfloat16: 0.02), or the script ends with status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from figures import machine, show

from tracesight.ops.attention import FORMS, attention

# Pictures and tokens: about as much work a row.
CASES = ((16, 50), (4, 197), (2, 577), (1, 1025))


def once(form: str, parts: list[torch.Tensor], backward: bool) -> tuple[float, torch.Tensor]:
    """Seconds of a call, and what it gave."""
    q, k, v = parts
    start = time.perf_counter()
    out = attention(q, k, v, form)
    if backward:
        out.sum().backward()
    return time.perf_counter() - start, out.detach()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts = machine(args.threads)
    show(facts)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    bound = 1e-4 if args.dtype == "float32" else 0.02
    rows = []
    for pictures, tokens in CASES:
        for backward in (False, True):
            parts = [torch.randn(pictures, 12, tokens, 64, dtype=dtype, requires_grad=backward) for _ in range(3)]
            times: dict[str, list[float]] = {form: [] for form in FORMS}
            outs = {}
            for _ in range(args.rounds + 1):  # the first one warms up
                for form in FORMS:
                    seconds, outs[form] = once(form, parts, backward)
                    times[form].append(seconds)
            if not torch.allclose(outs["plain"], outs["fused"], rtol=0, atol=bound):
                print(f"{tokens} tokens: the forms do not agree")
                return 1
            plain, fused = (statistics.median(times[form][1:]) * 1e3 for form in FORMS)
            what = "forward and backward" if backward else "forward"
            print(f"{pictures} x {tokens} tokens, {what}: plain {plain:.1f} ms, fused {fused:.1f} ms, "
                  f"fused over plain {fused / plain:.2f}", flush=True)  # fmt: skip
            rows.append({"pictures": pictures, "tokens": tokens, "what": what, "plain_ms": plain, "fused_ms": fused})
    if args.json:
        import json

        args.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
