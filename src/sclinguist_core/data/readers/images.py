"""Pictures of the tissue: reading them safely, as 8-bit colour."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from pathlib import Path

import numpy as np

from sclinguist_core.errors import InputError

#: Largest picture that is decoded, in pixels. Space Ranger's are 2000 to 6000 pixels wide; a
#: small file that unpacks to more than this is an attack or a full-resolution scan.
MAX_PIXELS = 150_000_000


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

    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # Our own limit below replaces Pillow's, which warns at some sizes and raises at others.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width} x {height} pixels")
        image.load()
        pixels = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far more pixels") from error
    except (OSError, EOFError, SyntaxError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{path}' cannot be read as an image ({error}): the file is damaged or not "
            "complete; fetch it again, or remove it to open the section without it."
        ) from error
    return to_rgb8(pixels)


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
    values = np.nan_to_num(pixels.astype(np.float32))
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
