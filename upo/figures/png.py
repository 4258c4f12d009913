"""Writing a figure, whole or not at all."""

import os
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from upo.core.files import atomic_file
from upo.errors import InputError
from upo.figures.style import styled

LIMIT = 90_000  # bytes; a larger picture is reduced to 255 colours, about a third of the size


def _drawn(figure: Figure) -> bytes:
    drawn = BytesIO()
    with styled():
        figure.savefig(
            drawn, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
    if drawn.getbuffer().nbytes <= LIMIT:
        return drawn.getvalue()
    smaller = BytesIO()
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(255, dither=Image.Dither.NONE)
        few.save(smaller, format="PNG", optimize=True)
    return smaller.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write ``figure`` as a small PNG and return its path; missing folders are made.

    The picture is written beside its place and moved there, so a run that is killed leaves the old
    file or the new one. The same figure gives the same bytes.

    Raises:
        InputError: If the path does not end in .png, or its folder cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f"A figure is saved as PNG, got {target}; give a name that ends in .png.")
    content = _drawn(figure)
    try:
        with atomic_file(target) as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"Figure {target} cannot be written ({error.strerror or error}); "
            "free the path or choose another output folder."
        ) from error
    return target
