"""From a scanned page to its text.

Rules of this file: tesseract where it is installed (`apt-get install tesseract-ocr`). Where it is not, the text that the example's own pages
carry as a fixture (see page.py), so that the pipeline runs on any machine; a real scan has none, and fails by name. The result says which.
"""

import os
import shutil
import subprocess
from io import BytesIO
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

FIXTURE = "Fixture"
"""The PNG text chunk in which page.py writes down what it drew."""
LONGEST = 30.0
"""Seconds that a page may take."""


class UnreadableError(ValueError):
    """No text was found, and none will be found by trying again."""


class Reading(NamedTuple):
    """What was read."""

    text: str
    by: str
    """"tesseract" or "fixture"."""


def read(page: bytes) -> Reading:
    """Read a page. Raises `UnreadableError`."""
    binary = shutil.which(os.environ.get("TESSERACT", "tesseract"))
    text, by = (_seen(binary, page), "tesseract") if binary else (_fixture(page), "fixture")
    if not text.strip():
        raise UnreadableError(f"no text was found on the page (by {by})")
    return Reading(text, by)


def _seen(binary: str, page: bytes) -> str:
    # One thread for a page: the workers are what runs in parallel.
    one_thread = os.environ | {"OMP_THREAD_LIMIT": "1"}
    command = [binary, "stdin", "stdout", "--psm", "6"]  # 6: one block of text
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and the page is its input, not an argument
            command, input=page, env=one_thread, capture_output=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnreadableError(f"the page could not be read within {LONGEST:g} s") from None
    if done.returncode:
        raise UnreadableError("tesseract can't read this file: upload a PNG, JPEG or TIFF")
    return done.stdout.decode(errors="replace")


def _fixture(page: bytes) -> str:
    try:
        with Image.open(BytesIO(page)) as image:
            found = image.info.get(FIXTURE)
    except (UnidentifiedImageError, OSError):
        raise UnreadableError("this is no image: upload a PNG") from None
    if found is None:
        raise UnreadableError(
            "tesseract is not installed here, and the page has no text fixture: apt-get install tesseract-ocr"
        )
    return str(found)
