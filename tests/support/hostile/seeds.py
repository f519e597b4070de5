"""Small valid files of every format, for mutations to begin with."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image

from qwen3vl.demo.scenes import random_clip, random_scene
from tests.support.hostile import pdf
from tests.support.hostile.jpeg import exif_loop
from tests.support.hostile.mp4 import video as png_video

SIDE = 64
"""Width and height of every image and frame."""


@cache
def seeds() -> dict[str, bytes]:
    """The files by name; they are the same in every process."""
    scene = random_scene(Random(0)).draw(Random(0)).resize((SIDE, SIDE))
    clear = scene.copy()
    clear.putalpha(128)
    palette = scene.quantize(32)
    moving = {"save_all": True, "append_images": [scene.rotate(90), scene.rotate(180)]}
    return {
        "rgb.png": _image(scene, "PNG"),
        "clear.png": _image(clear, "PNG"),
        "palette.png": _image(palette, "PNG", transparency=3),
        "animated.png": _image(scene, "PNG", **moving),
        "baseline.jpg": _image(scene, "JPEG", quality=80),
        "progressive.jpg": _image(scene, "JPEG", progressive=True, comment="a comment"),
        "cmyk.jpg": _image(scene.convert("CMYK"), "JPEG"),
        "exif.jpg": exif_loop(),
        "lossy.webp": _image(scene, "WEBP", quality=50),
        "lossless.webp": _image(clear, "WEBP", lossless=True),
        "animated.webp": _image(scene, "WEBP", **moving),
        "still.gif": _image(scene, "GIF"),
        "animated.gif": _image(scene, "GIF", **moving),
        "raw.tif": _image(scene, "TIFF"),
        "deflate.tif": _image(scene, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tif": _image(palette, "TIFF", compression="tiff_lzw"),
        "fax.tif": _image(scene.convert("1"), "TIFF", compression="group4"),
        "jpeg.tif": _image(scene, "TIFF", compression="jpeg"),
        "rgb.bmp": _image(scene, "BMP"),
        "palette.bmp": _image(palette, "BMP"),
        "mpeg4.mp4": _video("mpeg4"),
        "h264.mp4": _video("libx264"),
        "fragments.mp4": _video("mpeg4", movflags="frag_keyframe+empty_moov"),
        "png.mp4": png_video(),
        "drawing.pdf": _drawing(),
        "photo.pdf": _image(scene, "PDF"),
    }


def _image(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    if kind == "PDF":
        options = {"creationDate": None, "modDate": None}
    image.save(file, kind, **options)
    return file.getvalue()


def _video(codec: str, **options: str) -> bytes:
    random = Random(0)
    file = BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact", **options}) as container:
        stream: Any = container.add_stream(codec, 8, options={"threads": "1", "flags": "+bitexact", "g": "4"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in random_clip(random).frames(random, [index / 7 for index in range(8)]):
            array = np.asarray(frame.resize((SIDE, SIDE)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _drawing() -> bytes:
    """A page with text, a path, a form, a shading, a pattern and a glyph of its own."""
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    shading = b"<</ShadingType 2/ColorSpace/DeviceRGB/Coords[0 0 200 200]/Function 12 0 R>>"
    function = b"<</FunctionType 2/Domain[0 1]/C0[1 0 0]/C1[0 0 1]/N 1>>"
    pattern = b"/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 9 9]/XStep 9/YStep 9/Resources<<>>"
    resources = b"/Font<</F 10 0 R>>/Shading<</S 11 0 R>>/XObject<</X 13 0 R>>/Pattern<</P 14 0 R>>"
    content = b"/S sh BT /F 20 Tf 20 150 Td (a red circle) Tj ET /X Do /Pattern cs /P scn 9 9 90 40 re f"
    further = {
        10: font,
        11: shading,
        12: function,
        13: pdf.form(b"0 1 0 rg 100 100 50 50 re f"),
        14: pdf.stream(b"0 0 5 5 re f", pattern),
    }
    return pdf.page(pdf.deflated(content), resources, further)
