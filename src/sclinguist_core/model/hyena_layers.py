"""The Hyena operator and the block around it, as the published scLinguist uses them.

Poli et al., "Hyena Hierarchy: Towards Larger Convolutional Language Models" (ICML 2023), of order
two: an in-projection to three streams, a short depthwise convolution of each, a long convolution of
the product of two of them, gated by the third. The long filter is not stored but made by a small
perceptron from the position, and damped exponentially with it.

What is done for speed, the result being the same within rounding:

- the spectrum of a filter depends on weights alone: `ImplicitFilter.spectrum` is computed once per
  model, with the direct (skip) term in it;
- transforms have the next length that is a product of small primes; twice the number of genes, the
  obvious choice, is 4 x 9,601 and takes five times as long;
- after the long convolution a block works on each position alone, so that on a processor it is
  done in pieces that stay in the cache, and only where it is asked for.

Shape suffixes: B cells, L positions, D width, C = 3 D channels, E features of a position, F
frequencies, M hidden width of a perceptron.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.hyena_config import HyenaConfig

INITIAL_STD = 0.02
_FAST_DECAY, _SLOW_DECAY = 0.3, 1.5
"""Position (0 to 1) at which the fastest and the slowest channel have fallen to 1 %."""
_DECAYED = 1e-2
_FLOOR = 0.05
"""What is left of a filter far away, beside the decay."""
_CACHED_POSITIONS = 1_024


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A long filter in the frequency domain.

    Attributes
    ----------
    values
        Complex64, shape (D, F).
    length
        Positions that it is good for.
    fft_length
        Length of the transforms.
    """

    values: Tensor
    length: int
    fft_length: int


def causal_convolution(u_BDL: Tensor, spectrum: Spectrum) -> Tensor:
    """Convolve every channel with its filter; position l sees positions up to l.

    In float32 whatever the input is: a half-precision transform of 20,000 terms is noise.
    """
    length = u_BDL.shape[-1]
    frequencies_BDF = torch.fft.rfft(u_BDL.float(), n=spectrum.fft_length)
    return torch.fft.irfft(frequencies_BDF * spectrum.values, n=spectrum.fft_length)[..., :length]


class ImplicitFilter(nn.Module):
    """A filter of `length` taps a channel, made from the position by a sine perceptron."""

    time: Tensor
    decay: Tensor

    def __init__(self, config: HyenaConfig, length: int) -> None:
        super().__init__()
        # On the processor even where the network is set up without memory, to be filled from a
        # file: what follows from the sizes stands in no file.
        time_L = torch.linspace(0.0, 1.0, length, device="cpu")
        angle_L = 2.0 * math.pi * torch.arange(length, device="cpu") / length
        n_bands = (config.position_features - 1) // 2
        band = torch.linspace(1e-4, n_bands - 1, n_bands, device="cpu")
        phase = angle_L[:, None] * band
        # Learned, though it starts as a plain Fourier basis (with the sign of exp(-i phase)).
        self.position_LE = nn.Parameter(
            torch.cat([time_L[:, None], torch.cos(phase), -torch.sin(phase)], dim=1)
        )
        widths = [config.position_features, *[config.filter_width] * (config.filter_depth + 1)]
        self.layers = nn.ModuleList(nn.Linear(*of_layer) for of_layer in pairwise(widths))
        self.out = nn.Linear(config.filter_width, config.width, bias=False)
        self.frequency = nn.Parameter(torch.ones(config.filter_width))  # shared by all layers
        self.direct = nn.Parameter(torch.randn(config.width))
        rate = math.log(1 / _DECAYED)
        # Not among the weights: they follow from the sizes.
        self.register_buffer("time", time_L, persistent=False)
        self.register_buffer(
            "decay",
            torch.linspace(rate / _SLOW_DECAY, rate / _FAST_DECAY, config.width, device="cpu"),
            persistent=False,
        )

    def forward(self, length: int) -> Tensor:
        """First `length` taps, without the direct term, shape (D, length)."""
        x = self.position_LE[:length]
        for layer in self.layers:
            x = torch.sin(self.frequency * layer(x))
        window_LD = torch.exp(-self.time[:length, None] * self.decay) + _FLOOR
        return (self.out(x) * window_LD).T

    def spectrum(self, length: int) -> Spectrum:
        """Transform of the first `length` taps, the direct term added to the first."""
        # Under autocast the perceptron would run in half precision, and the transform refuse it.
        with torch.autocast(self.direct.device.type, enabled=False):
            fft_length = int(next_fast_len(2 * length - 1, real=True))
            values_DF = torch.fft.rfft(self(length), n=fft_length) + self.direct[:, None]
        return Spectrum(values_DF, length, fft_length)


class HyenaOperator(nn.Module):
    """Three streams, short convolutions, a gated long convolution."""

    def __init__(self, config: HyenaConfig, length: int) -> None:
        super().__init__()
        channels = 3 * config.width
        self.in_projection = nn.Linear(config.width, channels)
        self.short = nn.Conv1d(
            channels, channels, config.short_width, groups=channels, padding=config.short_width - 1
        )
        self.long = ImplicitFilter(config, length)
        self.out_projection = nn.Linear(config.width, config.width)

    def streams(self, x_BLD: Tensor) -> Tensor:
        """Project and convolve shortly, shape (B, C, L)."""
        # Channels first from the start: a transposed view would make the convolution crawl.
        z_BCL = self.in_projection.weight @ x_BLD.mT + self.in_projection.bias[:, None]
        return self.short(z_BCL)[..., : x_BLD.shape[1]]

    def streams_of_values(self, x_BL: Tensor, embed: nn.Linear, norm: nn.LayerNorm) -> Tensor:
        """Return ``streams(norm(embed(x)))`` for scalars `x`, without a vector per position.

        The norm of ``x w + b`` is ``x s w' + s b' + beta`` with one number s a position, so the
        projection has rank three, and with its shifts for the short convolution three times as
        many columns as that has taps.
        """
        w_D = embed.weight[:, 0] - embed.weight.mean()
        b_D = embed.bias - embed.bias.mean()
        variance_BL = (
            w_D.square().mean() * x_BL.square() + 2 * (w_D * b_D).mean() * x_BL
        ) + b_D.square().mean()
        s_BL = torch.rsqrt(variance_BL.clamp(min=0) + norm.eps)
        parts_B3L = torch.stack([x_BL * s_BL, s_BL, torch.ones_like(s_BL)], dim=1)
        weight_CD = self.in_projection.weight
        constant_C = weight_CD @ norm.bias + self.in_projection.bias
        rank_C3 = torch.stack(
            [weight_CD @ (norm.weight * w_D), weight_CD @ (norm.weight * b_D), constant_C], dim=1
        )
        # (C, 1, taps) x (C, 3, 1): the short filter of every channel on every part.
        weight_C3K = self.short.weight * rank_C3[:, :, None]
        return F.conv1d(parts_B3L, weight_C3K, self.short.bias, padding=self.short.padding)[
            ..., : x_BL.shape[1]
        ]

    def mix(self, streams_BCL: Tensor, spectrum: Spectrum) -> Tensor:
        """Gate and convolve, shape (B, L, D); the projection out is not done yet."""
        gate_BDL, key_BDL, value_BDL = streams_BCL.chunk(3, dim=1)
        return (causal_convolution(value_BDL * key_BDL, spectrum) * gate_BDL).mT


class HyenaBlock(nn.Module):
    """Pre-norm block: Hyena operator, then a perceptron with tanh-GELU."""

    def __init__(self, config: HyenaConfig, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.operator = HyenaOperator(config, length)
        self.local_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.expansion * config.width)
        self.down = nn.Linear(config.expansion * config.width, config.width)

    def local(self, mixed_BLD: Tensor, residual_BLD: Tensor) -> Tensor:
        """Everything after the long convolution: each position for itself."""
        x_BLD = residual_BLD + self.operator.out_projection(mixed_BLD)
        hidden_BLM = F.gelu(self.up(self.local_norm(x_BLD)), approximate="tanh")
        return x_BLD + self.down(hidden_BLM)


class HyenaStack(nn.Module):
    """Blocks and a last norm over a sequence of fixed order."""

    def __init__(self, config: HyenaConfig, length: int) -> None:
        super().__init__()
        self.length = length
        self.blocks = nn.ModuleList(HyenaBlock(config, length) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _blocks(self) -> list[HyenaBlock]:
        return cast(list[HyenaBlock], list(self.blocks))

    def spectra(self, length: int | None = None) -> tuple[Spectrum, ...]:
        """Spectrum of each block's filter, for the first `length` positions."""
        length = length or self.length
        return tuple(block.operator.long.spectrum(length) for block in self._blocks())

    def forward(
        self,
        x_BLD: Tensor,
        spectra: tuple[Spectrum, ...],
        *,
        first_streams: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Run a sequence, or the beginning of one, through all blocks.

        Parameters
        ----------
        x_BLD
            Positions 0 to L - 1; L may be less than the full length, as nothing looks ahead.
        spectra
            `spectra`, of the current weights.
        first_streams
            Streams of the first block when there is a shorter way to them, shape (B, C, L).
        keep
            Positions of the result, int64, shape (K,); all when None.

        Returns
        -------
        Shape (B, L, D), or (B, K, D).
        """
        for i, (block, spectrum) in enumerate(zip(self._blocks(), spectra, strict=True)):
            if i == 0 and first_streams is not None:
                streams_BCL = first_streams
            else:
                streams_BCL = block.operator.streams(block.norm(x_BLD))
            mixed_BLD = block.operator.mix(streams_BCL, spectrum)
            last = i == len(self.blocks) - 1
            if last and keep is not None:
                mixed_BLD, x_BLD = mixed_BLD[:, keep], x_BLD[:, keep]
            if torch.is_grad_enabled() or x_BLD.device.type != "cpu":
                x_BLD = block.local(mixed_BLD, x_BLD)
                continue
            pieces = zip(
                mixed_BLD.split(_CACHED_POSITIONS, 1), x_BLD.split(_CACHED_POSITIONS, 1),
                strict=True,
            )  # fmt: skip
            x_BLD = torch.cat([block.local(mixed, x) for mixed, x in pieces], dim=1)
        return self.norm(x_BLD)
