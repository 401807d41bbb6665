"""Labelled pictures in: records, readers, checks, splits, transforms and batches.

`read_splits` → `check` → `training_batches` is the way from a folder to tensors. Nothing here imports torch
before a batch is made.
"""
