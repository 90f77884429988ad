"""Larger images: interpolation, bed of nails, pixel shuffle and its inverse."""

from __future__ import annotations

from gpucnn.ops.images import linear_map
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import upsample as reference

interpolate_fprop = KernelTable("interpolate", "fprop")
interpolate_fprop.add("separable", "reference", reference.interpolate_fprop)

interpolate_dgrad = KernelTable("interpolate", "dgrad")
interpolate_dgrad.add("separable", "reference", reference.interpolate_dgrad)

nails_fprop = KernelTable("bed_of_nails", "fprop")
nails_fprop.add("array", "reference", reference.nails_fprop)

nails_dgrad = KernelTable("bed_of_nails", "dgrad")
nails_dgrad.add("array", "reference", reference.nails_dgrad)

shuffle = KernelTable("pixel_shuffle", "forward")
shuffle.add("array", "reference", reference.shuffle)

unshuffle = KernelTable("pixel_unshuffle", "forward")
unshuffle.add("array", "reference", reference.unshuffle)


Interpolate = linear_map("Interpolate", interpolate_fprop, interpolate_dgrad)
BedOfNails = linear_map("BedOfNails", nails_fprop, nails_dgrad)
PixelShuffle = linear_map("PixelShuffle", shuffle, unshuffle)
PixelUnshuffle = linear_map("PixelUnshuffle", unshuffle, shuffle)
