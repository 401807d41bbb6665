"""Hand-written kernels, each behind the function of `tracesight.ops` that it serves, which tests compare it with."""
