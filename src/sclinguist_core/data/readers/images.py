"""Pictures of the tissue: reading them safely, as 8-bit colour."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, opened, reading

#: Largest picture that is decoded, in pixels. Space Ranger's are 2000 to 6000 pixels wide; a
#: small file that unpacks to more than this is an attack or a full-resolution scan.
MAX_PIXELS = 150_000_000

#: Longest file that is read: as many pixels in 16-bit colour, not packed.
MAX_BYTES = 6 * MAX_PIXELS

_AT_ONCE = 2**20
_BRIGHTEST = 1e30
_PIXEL_BYTES = 16
"""Memory that a pixel takes while it is made 8-bit colour, whatever it was."""

#: Others run programs (EPS) or load parts on demand.
_FORMATS = ("PNG", "JPEG", "TIFF")


def read_image(path: Path) -> np.ndarray:
    """Read a PNG, JPEG or TIFF as 8-bit colour.

    Parameters
    ----------
    path
        Image file, possibly gzip-compressed (GEO).

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8; transparency is dropped, grey is repeated, 16 bits are scaled to 8.

    Raises
    ------
    InputError
        If the file is damaged, is no image, or is larger than :data:`MAX_PIXELS`, :data:`MAX_BYTES`
        or the memory that is free.
    """
    from PIL import Image

    remedy = "fetch it again, or remove it to open the section without it"
    data = io.BytesIO()
    with opened(path) as file, reading(path, "an image", remedy=remedy):
        while chunk := file.read(_AT_ONCE):
            data.write(chunk)
            if max(data.tell(), path.stat().st_size) > MAX_BYTES:
                raise InputError(
                    f"'{path}' is longer than {MAX_BYTES // 10**6:,} MB, expected an image of some "
                    f"MB: {remedy}."
                )
    data.seek(0)
    with reading(path, "an image", remedy=remedy), warnings.catch_warnings():
        # Pillow warns of damaged remarks beside the pixels, and of sizes, which are judged below.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(data, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(path, "far more pixels") from error
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width} x {height} pixels")
        check_fits(_PIXEL_BYTES * width * height, path)
        image.load()
        pixels = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    return to_rgb8(pixels)


def is_image(pixels: np.ndarray) -> bool:
    """Whether `to_rgb8` can make an image of an array."""
    return pixels.ndim in (2, 3) and pixels.size > 0 and pixels.dtype.kind in "biuf"


def to_rgb8(pixels: np.ndarray) -> np.ndarray:
    """Turn an image array into (H, W, 3) uint8.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C): uint8; float in 0..1 (as scanpy reads PNG); or anything else,
        which is stretched from its 0.1 % to its 99.9 % quantile, channel by channel.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3:
        raise ValueError(f"pixels have shape {pixels.shape}, expected (H, W) or (H, W, C)")
    # Grey is repeated last: a channel of a large scan takes enough memory while it is stretched.
    colours = _to_8_bits(pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1])
    if colours.shape[2] < 3:
        return np.repeat(colours, 3, axis=2)
    return np.ascontiguousarray(colours)


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale an array of (H, W, C) to uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    with np.errstate(over="ignore"):  # infinite, and so the brightest
        values = pixels.astype(np.float32)
    np.nan_to_num(values, copy=False, posinf=_BRIGHTEST, neginf=-_BRIGHTEST)
    least, most = (values.min(), values.max()) if values.size else (0, 0)
    if pixels.dtype.kind == "f" and least >= 0 and most <= 1:
        values *= 255
    elif least < 0 or most > 255:
        step = max(1, pixels.shape[0] * pixels.shape[1] // 1_000_000)
        sample = values.reshape(-1, values.shape[2])[::step]
        low, high = np.quantile(sample, [0.001, 0.999], axis=0).astype(np.float32)
        values -= low
        values /= np.maximum(high - low, 1e-6)
        np.clip(values, 0, 1, out=values)
        values *= 255
    return np.rint(values, out=values).astype(np.uint8)


def _too_large(path: Path, found: str) -> InputError:
    return InputError(
        f"Image '{path}' has {found}, expected at most {MAX_PIXELS // 1_000_000} million: give "
        "the smaller image that Space Ranger writes (tissue_hires_image.png)."
    )
