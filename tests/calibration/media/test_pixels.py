"""Images of every mode become what a viewer shows, against values that numpy computes."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import picture
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from hpa_merge.calibration.media import open_images
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample, Turn

SIDE = 16
RAMP = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
GREY8 = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
COLOURS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)

Pixels = NDArray[Any]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(content: bytes | Path) -> Pixels:
    """What the models see of it, ``[h, w, 3]``."""
    media = picture(content) if isinstance(content, Path) else Media("image", content)
    (image,) = open_images(Sample("s.jsonl:7", turns=(Turn("user", (media,)),)))
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(content: bytes) -> str:
    with pytest.raises(CalibrationError) as caught:
        opened(content)
    text = str(caught.value)
    assert text.startswith(f"s.jsonl:7: the image of {len(content)} bytes in the record cannot be read (")
    return text.removeprefix(f"s.jsonl:7: the image of {len(content)} bytes in the record cannot be read (")


def grey(values: Pixels) -> Pixels:
    return np.repeat(values[..., None], 3, axis=2)


def of_16_bits(dtype: str, kind: str, **options: Any) -> bytes:
    return saved(Image.fromarray(np.rint(RAMP).astype(dtype)), kind, **options)


def tiff(data: bytes, *, bits: int, signed: bool = False, zero_is_white: bool = False) -> bytes:
    """A TIFF of grey numbers, written by hand: Pillow writes less than it reads."""
    fields = {
        256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: int(not zero_is_white), 273: 8, 277: 1, 278: SIDE,
        279: len(data), 339: 2 if signed else 1,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in fields.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(fields)) + entries + b"\0" * 4


EIGHT = np.rint(np.rint(RAMP) / 257).astype(np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        of_16_bits("uint16", "PNG"),
        of_16_bits("uint16", "TIFF"),
        of_16_bits("uint16", "TIFF", compression="tiff_lzw"),
        of_16_bits(">u2", "TIFF"),
        of_16_bits("uint16", "JPEG2000", irreversible=False),
        of_16_bits("uint16", "PPM"),
        tiff((65535 - np.rint(RAMP)).astype("<u2").tobytes(), bits=16, zero_is_white=True),
    ],
    ids=["png", "tiff", "lzw", "big-endian", "jpeg2000", "pgm", "white-is-zero"],
)
def test_grey_of_16_bits(content: bytes) -> None:
    assert np.array_equal(opened(content), grey(EIGHT))


def test_grey_of_12_bits() -> None:
    values = np.arange(0, 4096, 16, dtype=np.uint16).reshape(SIDE, SIDE)
    low, high = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], axis=1).astype(np.uint8)
    content = tiff(packed.tobytes(), bits=12)
    assert np.array_equal(opened(content), grey(np.rint(values / 4095 * 255).astype(np.uint8)))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_fractions(scale: float) -> None:
    values = (RAMP / 65535 * scale).astype(np.float32)
    assert np.array_equal(opened(saved(Image.fromarray(values), "TIFF")), grey(np.rint(values * 255).astype(np.uint8)))


@pytest.mark.parametrize(
    ("values", "found"),
    [(RAMP / 257, "from 0 to 255"), (RAMP / 65535 - 0.5, "from -0.5 to 0.5"), (RAMP * np.nan, "from nan to nan"),
     (RAMP / 65535 + np.inf, "from inf to inf")],
)  # fmt: skip
def test_fractions_whose_white_is_unknown(values: Pixels, found: str) -> None:
    assert refusal(saved(Image.fromarray(values.astype(np.float32)), "TIFF")) == (
        f"its pixels are fractions {found}, and only those from 0 to 1 have a known white: save it with 8 bits): "
        "replace it or remove the sample."
    )


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(np.rint(RAMP).astype(np.int32)), "TIFF"),
        tiff(np.rint(RAMP / 2).astype("<i2").tobytes(), bits=16, signed=True),
    ],
    ids=["32 bits", "with a sign"],
)
def test_whole_numbers_whose_white_is_unknown(content: bytes) -> None:
    assert refusal(content).startswith("its pixels are whole numbers of 32 bits or with a sign, of no known white: ")


def png_of_16_bits(kind: int, values: Pixels, transparent: bytes = b"") -> bytes:
    """``kind``: 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    between = chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + between
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_colours_of_16_bits() -> None:
    wide = COLOURS.astype(np.uint16) * 257
    assert np.array_equal(opened(png_of_16_bits(2, wide)), COLOURS)
    with_alpha = np.concatenate([wide, ALPHA[..., None].astype(np.uint16) * 257], axis=2)
    assert_close(opened(png_of_16_bits(6, with_alpha)), on_white(COLOURS, ALPHA))
    grey_alpha = np.stack([GREY8, ALPHA], axis=2).astype(np.uint16) * 257
    assert_close(opened(png_of_16_bits(4, grey_alpha)), on_white(grey(GREY8), ALPHA))
    assert_close(opened(png_of_16_bits(0, np.rint(RAMP), struct.pack(">H", 0))), grey(np.where(RAMP == 0, 255, EIGHT)))


def on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def assert_close(found: Pixels, expected: Pixels, most: int = 1) -> None:
    """Within the rounding of a computation in whole numbers."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= most


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG2000"])
def test_transparent_colours_lie_on_white(kind: str) -> None:
    image = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    assert_close(opened(saved(image, kind, **options)), on_white(COLOURS, ALPHA))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparent_grey_lies_on_white(kind: str) -> None:
    image = Image.merge("LA", [Image.fromarray(GREY8), Image.fromarray(ALPHA)])
    assert_close(opened(saved(image, kind)), on_white(grey(GREY8), ALPHA))


def test_a_palette_with_transparency() -> None:
    palette = Image.frombytes("P", (SIDE, SIDE), (GREY8 % 4).tobytes())
    palette.putpalette([200, 10, 20, 30, 210, 40, 50, 60, 220, 0, 0, 0])
    table = np.array([[200, 10, 20], [30, 210, 40], [50, 60, 220], [0, 0, 0]], np.uint8)
    one = opened(saved(palette, "PNG", transparency=3))  # black is see-through
    assert np.array_equal(one, on_white(table[GREY8 % 4], np.where(GREY8 % 4 == 3, 0, 255)))
    each = opened(saved(palette, "PNG", transparency=bytes([255, 128, 0, 64])))
    assert_close(each, on_white(table[GREY8 % 4], np.array([255, 128, 0, 64])[GREY8 % 4]))
    gif = opened(saved(palette, "GIF", transparency=3))
    assert np.array_equal(gif, one)
    assert np.array_equal(opened(saved(palette, "PNG")), table[GREY8 % 4])  # nothing of it is


def test_a_transparent_colour() -> None:
    assert_close(
        opened(saved(Image.fromarray(COLOURS), "PNG", transparency=tuple(int(value) for value in COLOURS[3, 4]))),
        on_white(COLOURS, np.where((COLOURS[3, 4] == COLOURS).all(axis=2), 0, 255)),
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit(kind: str) -> None:
    bits = GREY8 % 3 == 0
    assert np.array_equal(opened(saved(Image.fromarray(bits), kind)), grey(np.where(bits, 255, 0)))


def test_cmyk() -> None:
    ink = np.dstack([COLOURS, ALPHA])
    expected = np.rint(255 * (1 - COLOURS / 255) * (1 - ALPHA[..., None] / 255))
    assert_close(opened(saved(cmyk(ink), "TIFF")), expected)
    flat = np.full((SIDE, SIDE, 4), (0, 200, 100, 30), np.uint8)
    wanted = np.full((SIDE, SIDE, 3), np.rint(np.array([255, 55, 155]) * (225 / 255)))
    assert_close(opened(saved(cmyk(flat), "JPEG", quality=100)), wanted, 2)


def cmyk(ink: Pixels) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(ink[..., channel])) for channel in range(4)])


def test_lab() -> None:
    """CIE L*a*b* of the illuminant D50, by its definition."""
    light, a, b = (np.array(values).reshape(2, 2) for values in ([20, 50, 80, 60], [0, 20, -10, -30], [0, -15, 20, 30]))
    f = (light + 16) / 116
    xyz = [
        np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29)) * white
        for t, white in zip((f + a / 500, f, f - b / 200), (0.9642, 1.0, 0.8249), strict=True)
    ]
    from_d50 = np.array([[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540],
                         [0.0719453, -0.2289914, 1.4052427]])  # fmt: skip
    linear = np.einsum("ij,jhw->hwi", from_d50, np.stack(xyz)).clip(0, 1)
    expected = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear) * 255
    bands = [np.rint(light * 255 / 100).astype(np.uint8), *((x + 128).astype(np.uint8) for x in (a, b))]
    image = Image.merge("LAB", [Image.fromarray(band) for band in bands])
    assert_close(opened(saved(image, "TIFF")), np.rint(expected), 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_mode_is_turned_upright(kind: str, dtype: str) -> None:
    values = (RAMP if dtype == "uint16" else RAMP / 257)[: SIDE // 2].astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to the right
    found = opened(saved(Image.fromarray(values), kind, exif=exif))
    plain = opened(saved(Image.fromarray(values), kind))
    assert np.array_equal(found, np.rot90(plain, k=-1))


# Files of several pictures, and files that end early


def frames(kind: str) -> bytes:
    pictures = [Image.fromarray(np.full((SIDE, SIDE, 3), shade, np.uint8)) for shade in (0, 120, 240)]
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations(kind: str) -> None:
    assert refusal(frames(kind)) == (
        "it is animated: give it as a video, or save the frame that is meant): replace it or remove the sample."
    )


def test_pages() -> None:
    assert refusal(frames("TIFF")).startswith("it has several pages, or begins with a preview: save the one that is")


@pytest.mark.parametrize(("kinds", "fine"), [((0, 1), True), ((0, 1, 4), True), ((1, 0), False), ((1,), False)])
def test_previews(kinds: tuple[int, ...], fine: bool) -> None:
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file, new=True) as writer:
        for number, kind in enumerate(kinds):
            page = Image.fromarray(COLOURS if number == 0 else COLOURS[::2, ::2])
            page.save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    if fine:
        assert np.array_equal(opened(file.getvalue()), COLOURS)
    else:
        refusal(file.getvalue())


def test_the_photograph_of_a_phone() -> None:
    shots = [Image.fromarray(np.full((SIDE, SIDE, 3), shade, np.uint8)) for shade in (200, 10)]
    content = saved(shots[0], "MPO", save_all=True, append_images=shots[1:])
    assert_close(opened(content), np.full((SIDE, SIDE, 3), 200))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_files_that_end_early(kind: str) -> None:
    content = saved(Image.fromarray(COLOURS), kind)
    refusal(content[: len(content) * 2 // 3])


def test_other_formats_are_named() -> None:
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n").startswith("it is none of ")
