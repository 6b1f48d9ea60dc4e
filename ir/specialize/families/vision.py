"""Computes how large a picture is in a vision model's terms: patches, grids, tiles, and the tokens it becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .base import FamilyError, Symbols, positive, size, sizes

Options = Mapping[str, object]
CHANNELS = 3
MAX_RATIO = 200  # of a picture's sides
MERGED = 4  # patches that become one token


class Geometry(Protocol):
    """Measures the pictures that the options tell: one mapping of quantities each, at least one."""

    @property
    def options(self) -> tuple[str, ...]:
        """The options taken."""
        ...

    def measure(self, options: Options, batch: int) -> list[Symbols]:
        """The quantities of each resolution; FamilyError where the options cannot be."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One resolution: sizes with defaults that options replace, and sizes that follow from them.

    Attributes:
        defaults: Name -> size, also the options taken.
        derived: Name -> function of what is known so far, in order.
        pinned: Names whose defaults nothing may replace: the model takes no other picture.
    """

    defaults: tuple[tuple[str, int], ...] = ()
    derived: tuple[tuple[str, Callable[[Symbols], int]], ...] = ()
    pinned: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The options taken."""
        return tuple(name for name, _ in self.defaults)

    def measure(self, options: Options, batch: int) -> list[Symbols]:
        """See :class:`Geometry`."""
        found: Symbols = {"batch_size": batch}
        for name, default in self.defaults:
            given = options.get(name)
            found[name] = default if given is None else positive(name, given)
            if name in self.pinned and found[name] != default:
                raise FamilyError("is fixed in this family", where=name, found=found[name], wanted=default)
        for name, follow in self.derived:
            found[name] = follow(found)
        return [found]


@dataclass(frozen=True)
class Resize:
    """Pictures scaled so that both sides are multiples of a factor, cut into patches, four of which make a token."""

    patch: int
    temporal: int = 2
    height: int = 354
    width: int = 536
    options: tuple[str, ...] = ("height", "width", "num_frames", "temporal_patch_size")

    def measure(self, options: Options, batch: int) -> list[Symbols]:
        """See :class:`Geometry`."""
        default = options.get("height") is None or options.get("width") is None
        heights, widths = ("height", self.height), ("width", self.width)
        pairs = pictures(options, heights, widths) if not default else [(self.height, self.width)]
        frames = frames_of(options, len(pairs))
        temporal = size(options, "temporal_patch_size", self.temporal) or 1
        found = [self._one(*pair, count, batch) for pair, count in zip(pairs, frames, strict=True)]
        return [{**one, "grid_width": self.patch**2 * temporal * CHANNELS} for one in found]

    def _one(self, height: int, width: int, frames: int, batch: int) -> Symbols:
        tall, wide = resized(height, width, 2 * self.patch)
        grid_h, grid_w = tall // self.patch, wide // self.patch
        return {
            "batch_size": batch,
            "grid_h": grid_h,
            "grid_w": grid_w,
            "grid_height": grid_h * grid_w * batch,
            "time": 1,
            "vision_size": grid_h * grid_w // MERGED,
            "tokens": grid_h * grid_w // MERGED * frames,
        }


@dataclass(frozen=True)
class Pad:
    """Pictures scaled down into a limit of patches, then padded to a multiple of two patches."""

    patch: int = 14
    height: int = 512
    width: int = 910
    most: int = 16384  # patches of a picture
    side: int = 512  # patches of a side
    options: tuple[str, ...] = ("image_height", "image_width", "num_frames")

    def measure(self, options: Options, batch: int) -> list[Symbols]:
        """See :class:`Geometry`."""
        pairs = pictures(options, ("image_height", self.height), ("image_width", self.width))
        frames = frames_of(options, len(pairs))
        return [self._one(*pair, count, batch) for pair, count in zip(pairs, frames, strict=True)]

    def _one(self, height: int, width: int, frames: int, batch: int) -> Symbols:
        limit = self.side * self.patch
        area = max(1, width // self.patch) * max(1, height // self.patch)
        scale = min(1.0, math.sqrt(self.most / area), limit / width, limit / height)
        grid_h, grid_w = (self._patches(min(max(1, int(side * scale)), limit)) for side in (height, width))
        tokens = grid_h * grid_w // MERGED * frames
        return {
            "batch_size": batch,
            "grid_h": grid_h,
            "grid_w": grid_w,
            "num_patches": grid_h * grid_w * frames,
            "num_image_tokens": tokens,
            "tokens": tokens,
        }

    def _patches(self, side: int) -> int:
        return -(-side // (2 * self.patch)) * 2


def pictures(options: Options, heights: tuple[str, int], widths: tuple[str, int]) -> list[tuple[int, int]]:
    """The (height, width) pairs that two options tell, each one size or a list; FamilyError where they do not pair."""
    tall = sizes(heights[0], options.get(heights[0])) or (heights[1],)
    wide = sizes(widths[0], options.get(widths[0])) or (widths[1],)
    if len(tall) != len(wide):
        names = f"{heights[0]} and {widths[0]}"
        raise FamilyError("do not pair", where=names, found=f"{len(tall)} and {len(wide)}", wanted="as many of each")
    return list(zip(tall, wide, strict=True))


def frames_of(options: Options, count: int) -> Sequence[int]:
    """The frames of each picture: one number for all, or as many as there are pictures."""
    frames = sizes("num_frames", options.get("num_frames")) or (1,)
    if len(frames) == 1:
        return frames * count
    if len(frames) != count:
        raise FamilyError("does not match the pictures", where="num_frames", found=len(frames), wanted=count)
    return frames


def resized(height: int, width: int, factor: int) -> tuple[int, int]:
    """Both sides as the nearest multiples of ``factor``, the area between 4 and 16384 squares of it."""
    if max(height, width) > MAX_RATIO * min(height, width):
        raise FamilyError("is too long a picture", where=f"{height}x{width}", wanted=f"sides within 1:{MAX_RATIO}")
    tall, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    least, most = 4 * factor**2, 16384 * factor**2
    if tall * wide > most:
        shrink = math.sqrt(height * width / most)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if tall * wide < least:
        grow = math.sqrt(least / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return tall, wide
