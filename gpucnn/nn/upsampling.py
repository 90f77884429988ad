"""Upsampling layers; arguments as in the functions of the same names."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.functional.upsample import Scale
from gpucnn.nn.module import Module
from gpucnn.problem import IntPair
from gpucnn.tensor import Tensor


class Upsample(Module):
    """Images (N,C,H,W) resized to (N,C,P,Q), to a size or by a factor; see F.interpolate."""

    def __init__(
        self,
        size: IntPair | None = None,
        scale_factor: Scale | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners, self.recompute_scale_factor = mode, align_corners, recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        wanted = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{wanted}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample with mode='nearest', see F.interpolate."""

    def __init__(self, size: IntPair | None = None, scale_factor: Scale | None = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample with mode='bilinear' and align_corners=True, see F.interpolate."""

    def __init__(self, size: IntPair | None = None, scale_factor: Scale | None = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class BedOfNails(Module):
    """Each pixel at the top left of a cell of zeros: (N,C,H,W) -> (N,C,f*H,f*W), or unbatched; see F.bed_of_nails."""

    def __init__(self, scale_factor: IntPair) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.bed_of_nails(input, self.scale_factor)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"


class PixelShuffle(Module):
    """Channels become pixels: (..., C*f*f, H, W) -> (..., C, f*H, f*W); see F.pixel_shuffle."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels become channels: (..., C, f*H, f*W) -> (..., C*f*f, H, W); see F.pixel_unshuffle."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"
