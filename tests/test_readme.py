"""The README's example and the scripts in examples/ run as they stand and do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.bench import records

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def example() -> str:
    return examples()[0]


def test_the_readmes_example_learns(tmp_path: Path) -> None:
    right = re.fullmatch(r"(\d+) of 1000 digits right\n", run(example(), tmp_path))
    assert right is not None
    assert int(right[1]) >= 900


def test_the_second_example_goes_on_from_the_first_and_there_is_no_other(tmp_path: Path) -> None:
    first, second = examples()
    assert first.count("range(3)") == 1
    told = "\nprint(loss.item(), scaler.get_scale(), model[0].weight.dtype)"
    *_, last = run(first.replace("range(3)", "range(1)") + second + told, tmp_path).splitlines()
    loss, scale, dtype = last.split()
    assert float(loss) < 1.0
    assert 1.0 <= float(scale) <= 2.0**16
    assert dtype == "float32"


def test_the_readmes_example_is_the_script_and_short() -> None:
    script = (ROOT / "examples" / "train_digits.py").read_text()
    assert script.endswith(example())
    assert len(example().splitlines()) <= 20


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    output = run((ROOT / "examples" / "own_function.py").read_text(), tmp_path)
    assert "0.5" in output


def test_weights_of_other_digits_help(tmp_path: Path) -> None:
    """The example as it stands, with one of its three rows, two of its seeds, and half of the steps before them."""
    script = (ROOT / "examples" / "transfer.py").read_text()
    for whole, part in (("STEPS = (5, 20, 80), (0, 1, 2)", "STEPS = (20,), (0, 1)"), ("steps=800", "steps=400")):
        assert script.count(whole) == 1
        script = script.replace(whole, part)
    row = re.search(r"^20 +([\d.]+) +([\d.]+) +([\d.]+)$", run(script, tmp_path), re.MULTILINE)
    assert row is not None
    from_scratch, new_head, whole_network = map(float, row.groups())
    assert new_head < 0.8 * from_scratch
    assert whole_network < 0.8 * from_scratch
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "csrc/README.md", "examples/README.md"])
def test_links_to_files_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), target


def test_every_module_path_that_the_documents_name_exists() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for path in re.findall(r"`((?:gpucnn|csrc|tests|benchmarks|examples)/[\w./]+)`", (ROOT / document).read_text()):
            assert (ROOT / path).exists(), f"{document}: {path}"


def test_no_placeholder_is_left() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        assert "@@" not in (ROOT / document).read_text(), document


def test_every_record_that_the_readme_names_can_be_read() -> None:
    names = re.findall(r"benchmarks/results/[\w.-]+\.json", (ROOT / "README.md").read_text())
    assert names
    for name in names:
        assert records.read(ROOT / name)["rows"], name
