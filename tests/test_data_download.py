"""Downloads: verified and whole or not there at all, from servers on this machine that behave and that do not."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import cifar as cifar_module
from gpucnn.data import load_cifar10, load_mnist, locate
from gpucnn.data import mnist as mnist_module
from gpucnn.data.locate import DownloadError, fetch_files
from gpucnn.data.mnist import SAMPLE_FOLDER, SHA256

DEAD = "http://127.0.0.1:9/"  # the discard port: refused at once


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path.lstrip("/"))
        super().do_GET()

    def log_message(self, *arguments):
        """Servers of tests keep quiet."""


@pytest.fixture
def serve():
    """Starts servers of folders; returns their URL and the list of files asked for."""
    servers = []

    def start(folder: Path) -> tuple[str, list[str]]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        server.daemon_threads, server.requested = True, []
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/", server.requested

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def silent():
    """The URL of a listener that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("GPUCNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(locate, "PROBE_SECONDS", 3.0)


@pytest.fixture
def files(tmp_path):
    """A folder to serve, and the checksums of what is in it."""
    folder = tmp_path / "served"
    folder.mkdir()
    contents = {"small": b"1", "large": bytes(range(256)) * 3000}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


class TestFetch:
    def test_arrives_with_progress_on_stderr(self, files, serve, tmp_path, capfd):
        folder, hashes = files
        url, requested = serve(folder)
        fetch_files(hashes, [url], tmp_path / "target")
        for name in hashes:
            assert (tmp_path / "target" / name).read_bytes() == (folder / name).read_bytes()
        assert requested == ["small", "large"]
        assert "100%" in capfd.readouterr().err

    def test_what_is_there_already_is_not_fetched_but_what_is_damaged_is(self, files, serve, tmp_path):
        folder, hashes = files
        url, requested = serve(folder)
        (tmp_path / "small").write_bytes(b"1")
        (tmp_path / "large").write_bytes(b"damaged")
        fetch_files(hashes, [url], tmp_path)
        assert requested == ["large"]
        assert (tmp_path / "large").read_bytes() == (folder / "large").read_bytes()

    def test_md5_is_understood(self, files, serve, tmp_path):
        folder, _ = files
        url, _ = serve(folder)
        digest = hashlib.md5((folder / "large").read_bytes()).hexdigest()
        fetch_files({"large": f"md5:{digest}"}, [url], tmp_path / "target")
        assert locate.intact(tmp_path / "target", {"large": f"md5:{digest}"})
        assert not locate.intact(tmp_path / "target", {"large": "0" * 64})
        assert not locate.intact(tmp_path / "target", {"large": f"md5:{digest}", "absent": "0" * 64})

    def test_wrong_content_never_takes_the_files_name(self, files, serve, tmp_path):
        folder, hashes = files
        (folder / "large").write_bytes(b"not what was published")
        url, _ = serve(folder)
        with pytest.raises(DownloadError, match=r"127.0.0.1:\d+, large: .*hash"):
            fetch_files(hashes, [url], tmp_path / "target")
        assert [path.name for path in (tmp_path / "target").iterdir()] == ["small"]

    @pytest.mark.parametrize("broken", ["dead", "empty", "wrong content"])
    def test_another_mirror_stands_in(self, broken, files, serve, tmp_path):
        folder, hashes = files
        bad = tmp_path / "bad"
        bad.mkdir()
        if broken == "wrong content":
            for name in hashes:
                (bad / name).write_bytes(b"other")
        first = DEAD if broken == "dead" else serve(bad)[0]
        fetch_files(hashes, [first, serve(folder)[0]], tmp_path / "target")
        assert locate.intact(tmp_path / "target", hashes)

    def test_every_mirror_says_why_not(self, files, serve, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9: ConnectionError") as caught:
            fetch_files(files[1], [DEAD, serve(tmp_path / "empty")[0]], tmp_path / "target")
        assert "HTTP status 404" in str(caught.value)
        assert not (tmp_path / "target").exists()

    def test_a_folder_that_cannot_be_written(self, files, serve, tmp_path):
        (tmp_path / "target").write_bytes(b"a file in the folder's place")
        with pytest.raises(DownloadError, match="small"):
            fetch_files(files[1], [serve(files[0])[0]], tmp_path / "target")


class TestGivingUp:
    def test_the_limit_is_below_5_seconds(self, monkeypatch):
        monkeypatch.undo()
        assert locate.PROBE_SECONDS < 5

    def test_a_server_that_never_answers(self, silent, files, tmp_path, monkeypatch):
        monkeypatch.setattr(locate, "PROBE_SECONDS", 0.3)
        with pytest.raises(DownloadError, match=r"127.0.0.1:\d+: (no answer within 0.3 s|ReadTimeout)"):
            fetch_files(files[1], [silent], tmp_path / "target")

    def test_name_resolution_that_hangs(self, files, tmp_path, monkeypatch):
        monkeypatch.setattr(locate, "PROBE_SECONDS", 0.3)
        release = threading.Event()

        def hang(*arguments, **options):
            release.wait(60)
            raise OSError("released")

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        try:
            with pytest.raises(DownloadError, match=r"no answer within 0\.3 s"):
                fetch_files(files[1], ["http://data.invalid/"], tmp_path / "target")
        finally:
            release.set()

    def test_a_silent_mirror_does_not_hold_up_one_that_answers(self, silent, files, serve, tmp_path):
        folder, hashes = files
        fetch_files(hashes, [silent, serve(folder)[0]], tmp_path / "target")
        assert locate.intact(tmp_path / "target", hashes)

    def test_mnist_goes_on_with_the_sample(self, silent, monkeypatch):
        monkeypatch.setattr(locate, "PROBE_SECONDS", 0.3)
        monkeypatch.setattr(mnist_module, "MIRRORS", (silent, DEAD))
        train, _ = load_mnist()
        assert train.name == "mnist-sample"
        assert "download failed: 127.0.0.1" in train.source

    def test_cifar10_says_how_to_get_it(self, monkeypatch, tmp_path):
        monkeypatch.setattr(cifar_module, "MIRRORS", (DEAD,))
        with pytest.raises(
            FileNotFoundError, match=r"download failed: 127.0.0.1:9: ConnectionError. To get it: unpack"
        ) as caught:
            load_cifar10()
        assert "$GPUCNN_DATA not set" in str(caught.value)
        assert str(tmp_path / "cache" / "gpucnn" / "cifar10") in str(caught.value)


class TestMnist:
    def test_is_downloaded_once_and_then_comes_from_the_cache(self, serve, monkeypatch, tmp_path):
        hashes = {name: hashlib.sha256((SAMPLE_FOLDER / name).read_bytes()).hexdigest() for name in SHA256}
        url, requested = serve(SAMPLE_FOLDER)
        monkeypatch.setattr(mnist_module, "SHA256", hashes)
        monkeypatch.setattr(mnist_module, "MIRRORS", (url,))
        train, test = load_mnist()
        assert (train.name, len(train), len(test)) == ("mnist", 4000, 1000)
        assert f"from {tmp_path / 'cache' / 'gpucnn' / 'mnist'} (downloaded)" in train.source
        assert len(requested) == 4
        again, _ = load_mnist()
        assert "(the cache)" in again.source
        assert len(requested) == 4
        np.testing.assert_array_equal(again.images, train.images)


class TestCifar10:
    def test_is_downloaded_unpacked_and_then_comes_from_the_cache(self, serve, monkeypatch, tmp_path):
        monkeypatch.setattr(cifar_module, "_RECORDS", 4)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name in cifar_module.FILES.names:
                content = bytes(4 * 3073) if name.endswith(".bin") else b"a b c d e f g h i j\n"
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / cifar_module.ARCHIVE).write_bytes(archive.getvalue())
        url, requested = serve(tmp_path / "served")
        monkeypatch.setattr(cifar_module, "MIRRORS", (url,))
        monkeypatch.setattr(
            cifar_module, "HASHES", {cifar_module.ARCHIVE: f"md5:{hashlib.md5(archive.getvalue()).hexdigest()}"}
        )
        train, test = load_cifar10()
        assert (len(train), len(test)) == (20, 4)
        assert "(downloaded)" in train.source
        assert sorted(path.name for path in (tmp_path / "cache" / "gpucnn" / "cifar10").iterdir()) == sorted(
            cifar_module.FILES.names
        )
        assert "(the cache)" in load_cifar10()[0].source
        assert requested == [cifar_module.ARCHIVE]
