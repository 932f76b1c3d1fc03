"""Pictures of the tissue: reading them safely, as 8-bit colour."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import opened, reading

#: Largest picture that is decoded, in pixels. Space Ranger's are 2000 to 6000 pixels wide; a
#: small file that unpacks to more than this is an attack or a full-resolution scan.
MAX_PIXELS = 150_000_000

_BRIGHTEST = 1e30

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
        If the file is damaged, is no image, or is larger than :data:`MAX_PIXELS`.
    """
    from PIL import Image

    with opened(path) as file:
        data = io.BytesIO(file.read())
    remedy = "fetch it again, or remove it to open the section without it"
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
    pixels = pixels[:, :, :3]
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    with np.errstate(over="ignore"):  # infinite, and so the brightest
        values = np.nan_to_num(pixels.astype(np.float32), posinf=_BRIGHTEST, neginf=-_BRIGHTEST)
    if pixels.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if values.size and values.min() >= 0 and values.max() <= 255:
        return np.rint(values).astype(np.uint8)
    step = max(1, pixels.shape[0] * pixels.shape[1] // 1_000_000)
    sample = values.reshape(-1, 3)[::step]
    low, high = np.quantile(sample, [0.001, 0.999], axis=0)
    stretched = (values - low) / np.maximum(high - low, 1e-6)
    return np.rint(np.clip(stretched, 0, 1) * 255).astype(np.uint8)


def _too_large(path: Path, found: str) -> InputError:
    return InputError(
        f"Image '{path}' has {found}, expected at most {MAX_PIXELS // 1_000_000} million: give "
        "the smaller image that Space Ranger writes (tissue_hires_image.png)."
    )
