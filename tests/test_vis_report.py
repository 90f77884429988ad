"""Pictures of a run: the page that shows them."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vis_checks import DIGITS, NASTY, SIZE_LIMIT, draw_all, make_rows, needs_matplotlib

from gpucnn.vis.report import write_report

# ------------------------------------------------------------------------------------------------------ report


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, every attribute and text collected."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]

    def inside(self, tag: str) -> list[str]:
        return [text for t, text in self.texts if t == tag]


def png(path: Path, width: int = 7, height: int = 5) -> Path:
    Image.new("RGB", (width, height), (1, 2, 3)).save(path)
    return path


def make_report(folder: Path, **change: Any) -> Path:
    arguments: dict[str, Any] = {
        "title": "LeNet-5 on MNIST", "summary": [("Test error", "1.97 %"), ("Images/s", "12,768")],
        "rows": make_rows(3), "pictures": [("The curve", png(folder / "curve.png"))],
        "config": {"model": "lenet5", "optimizer": {"name": "sgd", "nesterov": True, "betas": [0.9, 0.5]}, "to": None},
    }  # fmt: skip
    return write_report(folder, **{**arguments, **change})


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_report_shows_everything(tmp_path: Path) -> None:
    path = make_report(tmp_path)
    assert path == tmp_path / "report.html"
    page = read(path)
    assert page.inside("title") == page.inside("h1") == ["LeNet-5 on MNIST"]
    assert page.inside("dt") == ["Test error", "Images/s"]
    assert page.inside("dd") == ["1.97 %", "12,768"]
    assert page.values("img", "alt") == ["The curve"]
    assert (page.values("img", "width"), page.values("img", "height")) == (["7"], ["5"])
    assert page.inside("figcaption") == ["The curve"]
    cells = page.inside("td")
    assert "2,814" in cells  # the step of epoch 3
    assert "25.60" in cells  # its training error in percent
    assert {"lenet5", "sgd", "yes", "0.9, 0.5", "none"} <= set(cells)
    assert "optimizer.name" in "".join(page.inside("th"))
    assert page.values("tr", "class") == ["best"]
    assert '<tr class="best"><th scope="row">3</th>' in path.read_text(encoding="utf-8")
    assert page.tags.count("details") == 2


def test_report_embeds_the_picture_itself(tmp_path: Path) -> None:
    source = read(make_report(tmp_path)).values("img", "src")
    assert len(source) == 1
    assert base64.b64decode(source[0].removeprefix("data:image/png;base64,")) == (tmp_path / "curve.png").read_bytes()


def test_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    content = make_report(tmp_path).read_text(encoding="utf-8")
    page = Page(content)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]*", "", content), re.IGNORECASE)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in content
    assert "@import" not in content
    policy = "".join(page.values("meta", "content"))
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("text", [*NASTY[:4], "</style><b>", "--><!--", "\udcff\x00 é 中", "1.93\u00a0%"])
def test_report_escapes_everything(tmp_path: Path, text: str) -> None:
    shown = text.replace("\x00", "\ufffd").replace("\udcff", "\ufffd")
    rows = [{"epoch": 1, "train_loss": 1.0, text: text}]
    config = {text: text, "deep": {text: [text, {text: text}]}}
    pictures = [(text, png(tmp_path / "p.png"))]
    page = read(make_report(tmp_path, title=text, summary=[(text, text)], rows=rows, pictures=pictures, config=config))
    plain = read(make_report(tmp_path, rows=[{"epoch": 1, "train_loss": 1.0, "x": "x"}], summary=[("x", "x")],
                             config={"x": "x", "deep": {"x": ["x", {"x": "x"}]}}))  # fmt: skip
    assert [tag for tag in page.tags if tag != "wbr"] == [tag for tag in plain.tags if tag != "wbr"]
    assert page.inside("h1") == page.inside("dt") == page.inside("dd") == page.inside("figcaption") == [shown]
    assert page.values("img", "alt") == [shown]
    assert page.inside("td").count(shown) == 2


def test_report_of_a_run_without_epochs_pictures_or_configuration(tmp_path: Path) -> None:
    page = read(make_report(tmp_path, rows=[], pictures=[], config={}, summary=[]))
    assert page.inside("p") == ["No epoch was finished."]
    assert not {"table", "figure", "dl"} & set(page.tags)


def test_report_of_rows_with_holes(tmp_path: Path) -> None:
    rows = [{"epoch": 2, "train_loss": float("nan"), "extra": 3.0}, {"epoch": 5, "test_accuracy": 1.0, "step": None}]
    page = read(make_report(tmp_path, rows=rows))
    dash = chr(0x2013)
    assert page.inside("td")[:6] == ["nan", dash, "3", dash, "0.00", dash]
    heads = page.inside("th")
    assert heads[:6] == ["epoch", "train loss", "test error, %", "extra", "2", "5"]
    assert "2 epochs · best: epoch 5" in page.inside("summary")


def test_report_is_the_same_bytes_and_can_go_elsewhere(tmp_path: Path) -> None:
    first = make_report(tmp_path).read_bytes()
    assert make_report(tmp_path).read_bytes() == first
    (tmp_path / "other").mkdir()
    elsewhere = make_report(tmp_path, path=tmp_path / "other" / "page.html")
    assert elsewhere == tmp_path / "other" / "page.html"
    assert elsewhere.read_bytes() == first


def test_report_refuses_bad_input(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match=r"run_dir: the folder .*gone' does not exist"):
        write_report(tmp_path / "gone", title="t", summary=[], rows=[], pictures=[], config={})
    with pytest.raises(FileNotFoundError, match=r"path: the folder .*nowhere' does not exist"):
        make_report(tmp_path, path=tmp_path / "nowhere" / "r.html")
    with pytest.raises(FileNotFoundError, match=r"pictures: .*gone\.png' \(The curve\) does not exist"):
        make_report(run, pictures=[("The curve", run / "gone.png")])
    for content in (b"", b"GIF89a" + bytes(40), b"\x89PNG\r\n\x1a\n", png(tmp_path / "x.png").read_bytes()[:20]):
        (run / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"pictures: .*bad\.png' \(cut\) is not a PNG file"):
            make_report(run, pictures=[("cut", run / "bad.png")])
    with pytest.raises(ValueError, match="must increase"):
        make_report(run, rows=[{"epoch": 2}, {"epoch": 1}])
    with pytest.raises(TypeError, match="must be a number"):
        make_report(run, rows=[{"epoch": 2, "seconds": "3"}])
    assert not (run / "report.html").exists()


@needs_matplotlib
def test_report_of_the_four_pictures_stays_small(tmp_path: Path) -> None:
    pictures = [(path.stem, path) for path in draw_all(tmp_path, DIGITS)]
    report = make_report(tmp_path, pictures=pictures)
    assert report.stat().st_size < 4 * SIZE_LIMIT
    assert len(read(report).values("img", "src")) == 4
