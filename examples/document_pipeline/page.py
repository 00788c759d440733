"""Draws a scanned invoice: `python page.py 2026-117 240.00 > page.png`.

Rules of this file: what is drawn is also written into the PNG as its text fixture, for machines without OCR (see reading.py).
"""

import sys
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from reading import FIXTURE

LINES = "Northwind Office Supplies\nInvoice {number}\nDate 2026-03-14\nThree hours of work\nTotal {total} EUR"


def draw(number: str, total: str) -> bytes:
    """A page as PNG: grey, noisy and a little askew, as scanners give it."""
    text = LINES.format(number=number, total=total)
    page = Image.new("L", (1000, 620), 255)
    ImageDraw.Draw(page).multiline_text((90, 80), text, fill=30, font=ImageFont.load_default(44), spacing=36)
    askew = page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor=255)
    scan = Image.blend(askew, Image.effect_noise(page.size, 60), 0.15)
    told, png = PngInfo(), BytesIO()
    told.add_text(FIXTURE, text)
    scan.save(png, "PNG", pnginfo=told)
    return png.getvalue()


if __name__ == "__main__":
    sys.stdout.buffer.write(draw(*sys.argv[1:3]))
