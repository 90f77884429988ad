"""Where published data sets are looked for, and how they are downloaded.

The order is the same for all: the folder that the caller names, `$GPUCNN_DATA`, the cache, a checksummed download
into the cache.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

VARIABLE = "GPUCNN_DATA"
PROBE_SECONDS = 4.0
_STALL_SECONDS = 10.0
_CHUNK = 1 << 16

_log = logging.getLogger("gpucnn.data")

Announce = Callable[[str], None]


class DownloadError(OSError):
    """Nothing could be downloaded: no network, no mirror that answers, or files with wrong checksums."""


@dataclass(frozen=True)
class FileSet:
    """The files that make up a data set, and the folders they are usually kept in.

    Attributes:
        title: the data set's name, for messages.
        names: the files, all of which are needed.
        folders: where they may lie below the folder that is searched; "" is that folder itself.
        endings: what a file's name may carry beyond the given one.
    """

    title: str
    names: tuple[str, ...]
    folders: tuple[str, ...]
    endings: tuple[str, ...] = ("",)

    def find(self, root: Path) -> dict[str, Path] | None:
        """The files by name where one folder below `root` has them all; else None, and a warning if it has some."""
        for folder in self.folders:
            files = self._present(root / folder)
            if len(files) == len(self.names):
                return files
            if files:
                _log.warning("%s: passed over: %s %s", self.title, root / folder, self._lacks(root / folder))
        return None

    def find_or_refuse(self, root: Path) -> dict[str, Path]:
        """The files by name.

        Raises:
            FileNotFoundError: no folder has them all; the message names files and folders.
        """
        files = self.find(root)
        if files is None:
            added = " or ".join(f"with {ending}" if ending else "plain" for ending in self.endings)
            looked = "; ".join(f"{root / folder} {self._lacks(root / folder)}" for folder in self.folders)
            raise FileNotFoundError(
                f"{self.title}: not in {root}: looked for {', '.join(self.names)} ({added}); {looked}"
            )
        return files

    def _lacks(self, folder: Path) -> str:
        present = self._present(folder)
        if not present:
            return "has none of them" if folder.is_dir() else "is not a folder"
        return f"lacks {', '.join(name for name in self.names if name not in present)}"

    def _present(self, folder: Path) -> dict[str, Path]:
        files = {}
        for name in self.names:
            for ending in self.endings:
                if (path := folder / (name + ending)).is_file():
                    files[name] = path
                    break
        return files


def search(files: FileSet, data_dir: str | os.PathLike[str] | None) -> tuple[dict[str, Path], str] | None:
    """The files where the caller or `$GPUCNN_DATA` says, with words for which it was; None where neither has them.

    Raises:
        FileNotFoundError: `data_dir` was given and does not have them.
    """
    if data_dir is not None:
        return files.find_or_refuse(Path(data_dir).expanduser()), "the folder asked for"
    named = os.environ.get(VARIABLE)
    if named and (found := files.find(Path(named).expanduser())) is not None:
        return found, f"${VARIABLE}"
    return None


def describe_variable() -> str:
    """What `$GPUCNN_DATA` contributes to a message about files not found."""
    named = os.environ.get(VARIABLE)
    return f"not in ${VARIABLE} ({named})" if named else f"${VARIABLE} not set"


def cache_folder(name: str) -> Path:
    """The data set's folder in the user's cache (`$XDG_CACHE_HOME`, `~/.cache`, or what the platform has for it)."""
    import pooch

    return Path(pooch.os_cache("gpucnn")) / name


def intact(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether the folder has every file with the right checksum ("sha256 hex" or "md5:hex")."""
    import pooch

    for name, known in hashes.items():
        algorithm, _, digest = known.rpartition(":")
        path = folder / name
        if not path.is_file() or pooch.file_hash(str(path), alg=algorithm or "sha256") != digest:
            return False
    return True


def fetch_files(hashes: Mapping[str, str], mirrors: Sequence[str], folder: Path) -> None:
    """Downloads files into a folder, with progress on stderr; each appears there whole and verified, or not at all.

    Files that are already there with the right checksum are left alone. Whether there is a network at all is found out
    in `PROBE_SECONDS`, whatever hangs: name resolution, connecting, or the answer.

    Args:
        hashes: file name to checksum ("sha256 hex" or "md5:hex").
        mirrors: URLs ending in "/" below which the files lie; whichever answers first is used first.
        folder: made if necessary.

    Raises:
        DownloadError: with what each mirror said.
    """
    import pooch

    first = _first_to_answer([mirror + next(iter(hashes)) for mirror in mirrors], PROBE_SECONDS)
    ordered = [mirrors[first], *(mirror for number, mirror in enumerate(mirrors) if number != first)]
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=_CHUNK, timeout=_STALL_SECONDS)
    for name, known in hashes.items():
        failures = []
        for mirror in ordered:
            try:
                pooch.retrieve(mirror + name, known_hash=known, fname=name, path=folder, downloader=fetch)
                break
            except (ValueError, OSError) as error:
                failures.append(f"{_host(mirror)}, {name}: {error}")
        else:
            raise DownloadError("; ".join(failures))


def _first_to_answer(urls: Sequence[str], seconds: float) -> int:
    """Which URL is the first to say that it has its file.

    Raises:
        DownloadError: none did within that time.
    """
    answers: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()

    def ask(number: int) -> None:
        try:
            import requests

            status = requests.head(urls[number], timeout=seconds, allow_redirects=True).status_code
            answers.put((number, None if status == 200 else f"HTTP status {status}"))
        except Exception as error:  # the asker's answer, whatever it is; it goes into the message below
            answers.put((number, type(error).__name__))

    # Threads, because no time limit of a library covers name resolution; daemons, because one may hang past our end.
    deadline = time.monotonic() + seconds
    for number in range(len(urls)):
        threading.Thread(target=ask, args=(number,), name="gpucnn-probe", daemon=True).start()
    said = dict.fromkeys(urls, f"no answer within {seconds:g} s")
    for _ in urls:
        try:
            number, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if failure is None:
            return number
        said[urls[number]] = failure
    raise DownloadError("; ".join(f"{_host(url)}: {failure}" for url, failure in said.items()))


def _host(url: str) -> str:
    return urlsplit(url).netloc


def tell(sentence: str, announce: Announce | None) -> None:
    """Says which data are in use: through `announce`, or to the log "gpucnn.data"."""
    if announce is None:
        _log.info(sentence)
    else:
        announce(sentence)
