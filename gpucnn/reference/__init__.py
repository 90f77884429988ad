"""Array code for numpy and cupy alike: the fallback on every machine and the truth for the kernels.

Functions take and return C-contiguous arrays, images as (N,H,W,C) and filters as (K,R,S,C/groups); they import neither
ops nor the extension. They are tested themselves against gpucnn.testing.naive.
"""
