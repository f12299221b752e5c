"""A one-dimensional U-Net over a vector: the network of StructRepDiff (appendix A.3.2).

Two ResNet blocks a stage with weight-standardised convolutions and group norm (Kolesnikov et al., Big Transfer, 2020), linear
attention with four heads after each stage, skip connections, and the time as sinusoids that scale and shift every block.

Two additions make it affordable on a CPU and are off or harmless otherwise: `patch` neighbouring entries enter as the channels of
one place (1: the paper's), and a learned embedding tells every place where it is. A convolution alone knows that only from the
padding at the ends, while in our vectors the place is everything: it says which element a fraction belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError


class UNet1D(nn.Module):
    """Noisy vectors and their times in, one number per entry out.

    Parameters
    ----------
    size : int
        Entries of a vector.
    width : int
        Channels of the first stage (the paper: 256); a multiple of `heads` and of `groups`.
    stages : sequence of int
        Channels of the stages in units of `width`; every stage but the last halves the length.
    patch : int
        Neighbouring entries that share a place; 1 in the paper.
    heads : int
        Of the linear attention.
    groups : int
        Of the group norms.
    """

    def __init__(
        self, size: int, width: int = 64, stages: Sequence[int] = (1, 2, 2), patch: int = 1, heads: int = 4, groups: int = 8
    ) -> None:
        super().__init__()
        if min(size, width, patch, heads, groups, *stages) < 1 or width % heads or width % groups or width % 2:
            raise RecipeError(f"width {width} must be even and a multiple of {heads} heads and of {groups} groups; all options at least 1")
        self.size, self.patch = size, patch
        block = patch * 2 ** (len(stages) - 1)  # every halving must come out even
        self.length = -(-size // block) * block // patch
        channels = [width * factor for factor in stages]
        time = 2 * width
        self.time = nn.Sequential(Sinusoids(width), nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.stem = nn.Conv1d(patch, width, 7, padding=3)
        self.place = nn.Parameter(0.02 * torch.randn(width, self.length, generator=torch.Generator().manual_seed(0)))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = width
        for number, after in enumerate(channels):
            last = number == len(channels) - 1
            resize: nn.Module = nn.Identity() if last else nn.Conv1d(after, after, 4, stride=2, padding=1)
            self.down.append(Stage(before, after, 0, time, heads, groups, resize))
            before = after
        self.middle = Stage(before, before, 0, time, heads, groups, nn.Identity())
        for number, after in reversed(list(enumerate(channels))):
            resize = nn.Identity() if number == 0 else nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(after, after, 3, padding=1))
            self.up.append(Stage(before, after, after, time, heads, groups, resize))
            before = after
        self.head = ResNetBlock(before + width, width, time, groups)
        self.out = nn.Conv1d(width, patch, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, vectors: Tensor, time: Tensor) -> Tensor:
        """Output for noisy vectors.

        Parameters
        ----------
        vectors : Tensor, shape (b, size)
        time : Tensor, shape (b,)
            From 0 (clean) to 1 (noise).

        Returns
        -------
        Tensor, shape (b, size)
        """
        padded = functional.pad(vectors, (0, self.length * self.patch - self.size))
        x = stem = self.stem(padded.unflatten(1, (self.length, self.patch)).transpose(1, 2)) + self.place
        embedded = self.time(time)
        skips: list[tuple[Tensor, Tensor]] = []
        for stage in self.down:
            x, skip = stage(x, embedded, None)
            skips.append(skip)
        x, _ = self.middle(x, embedded, None)
        for stage in self.up:
            x, _ = stage(x, embedded, skips.pop())
        x = self.out(self.head(torch.cat([x, stem], dim=1), embedded))
        return x.transpose(1, 2).flatten(1)[:, : self.size]


class Stage(nn.Module):
    """Two ResNet blocks, linear attention, a change of length; each block may take a skip connection.

    Parameters
    ----------
    before, after, skip : int
        Channels that come in, go out, and join each block.
    time : int
        Size of the embedded time.
    heads, groups : int
    resize : nn.Module
        What changes the length at the end.
    """

    def __init__(self, before: int, after: int, skip: int, time: int, heads: int, groups: int, resize: nn.Module) -> None:
        super().__init__()
        self.first = ResNetBlock(before + skip, after, time, groups)
        self.second = ResNetBlock(after + skip, after, time, groups)
        self.attention = LinearAttention(after, heads)
        self.resize = resize

    def forward(self, x: Tensor, time: Tensor, skip: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next stage's input, and the outputs of both blocks for the way up."""
        first = self.first(x if skip is None else torch.cat([x, skip[1]], dim=1), time)
        second = self.attention(self.second(first if skip is None else torch.cat([first, skip[0]], dim=1), time))
        return self.resize(second), (first, second)


class ResNetBlock(nn.Module):
    """Two weight-standardised convolutions with group norm, the first scaled and shifted by the time, and a shortcut."""

    def __init__(self, before: int, after: int, time: int, groups: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * after))
        self.conv1, self.norm1 = StandardizedConv1d(before, after, 3, padding=1), nn.GroupNorm(groups, after)
        self.conv2, self.norm2 = StandardizedConv1d(after, after, 3, padding=1), nn.GroupNorm(groups, after)
        self.shortcut: nn.Module = nn.Identity() if before == after else nn.Conv1d(before, after, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, before, length) and (b, time) → (b, after, length)."""
        scale, shift = self.time(time).unsqueeze(-1).chunk(2, dim=1)
        hidden = functional.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        return functional.silu(self.norm2(self.conv2(hidden))) + self.shortcut(x)


class StandardizedConv1d(nn.Conv1d):
    """A convolution whose kernels have mean 0 and variance 1 over inputs and places."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, length) → (b, after, length)."""
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2), keepdim=True, unbiased=False)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the length (softmax of keys and queries apart), around a shortcut."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.inner = nn.Conv1d(channels, 3 * channels, 1, bias=False)
        self.outer = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.GroupNorm(1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, length) → the same."""
        query, key, value = self.inner(self.norm(x)).unflatten(1, (3, self.heads, -1)).unbind(1)
        query, key = query.softmax(dim=2) / math.sqrt(query.shape[2]), key.softmax(dim=3)
        context = key @ value.transpose(2, 3)
        return x + self.outer((context.transpose(2, 3) @ query).flatten(1, 2))


class Sinusoids(nn.Module):
    """Times in [0, 1] as sines and cosines of geometrically spaced frequencies (Vaswani et al., 2017), shape (b, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        """(b,) → (b, width)."""
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(self.width // 2, device=time.device) / (self.width // 2))
        # scaled as if a step were counted in thousandths: neighbouring steps differ in the fastest sine, the slowest spans the whole
        phase = 1000.0 * time[:, None].float() * frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)
