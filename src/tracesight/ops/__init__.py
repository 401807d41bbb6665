"""Geometry on tensors. Every function has one shape: what it returns never depends on what the data holds.

Letters used throughout: N pictures, K candidates a picture, M ground-truth objects (padded), R regions,
C channels, D detections. Boxes are `xyxy` in pixels, half-open, origin top left.
"""
