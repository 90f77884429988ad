"""Where pictures and reports are written, and how."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def check_target(path: str | os.PathLike[str]) -> Path:
    """``path`` as a Path, checked before anything is drawn.

    Raises:
        ValueError: its name does not end in ``.png``.
        FileNotFoundError: its folder does not exist.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"path: pictures are written as PNG, so the name must end in .png, got {str(target)!r}")
    check_folder(target)
    return target


def check_folder(target: Path) -> None:
    """Raises FileNotFoundError where the folder that ``target`` is to be written to does not exist."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(target.parent)!r} does not exist")


def write_atomically(target: Path, content: bytes) -> Path:
    """Writes ``content`` so that ``target`` is at every moment the old file or the whole new one."""
    # Not tempfile: whatever the umask says, its files are readable by the owner only, and a report is to be shared.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
