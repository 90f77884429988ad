"""Pictures of a run: the training curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vis_checks import colors_at, decode, make_rows, needs_matplotlib

from gpucnn.vis import curve, metrics, style
from gpucnn.vis.plots import training_curve

# ---------------------------------------------------------------------------------------------- training curve


@needs_matplotlib
@pytest.mark.parametrize("count", [1, 2, 12, 40, 1000])
def test_curve_shows_both_lines_in_both_panels(tmp_path: Path, written: list[str], count: int) -> None:
    path = training_curve(make_rows(count), tmp_path / "curve.png")
    assert path == tmp_path / "curve.png"
    pixels = decode(path)
    assert pixels.shape[1] == style.WIDTH
    height = pixels.shape[0]
    for part in (pixels[: height // 2], pixels[height // 2 :]):  # upper half: loss; lower half: error
        plot = part[:, 84 : 1008 - 150]
        assert colors_at(plot, style.BLUE).sum() > 20
        assert colors_at(plot, style.ORANGE).sum() > 10
    assert {"loss", "error, %", "learning rate", "epoch"} <= set(written)
    assert any(text.startswith("Training: 1 epoch" if count == 1 else f"Training: {count} epochs") for text in written)


@needs_matplotlib
def test_curve_names_the_best_epoch_and_the_last_values(tmp_path: Path, written: list[str]) -> None:
    rows = make_rows(3)
    for row, accuracy in zip(rows, (0.9, 0.9789, 0.9788), strict=True):
        row["test_accuracy"] = accuracy
    training_curve(rows, tmp_path / "curve.png")
    assert any("best test error 2.11 %, epoch 2 " in text for text in written)
    assert "test 2.12 %" in written
    assert "train 25.60 %" in written  # 100 * 0.5 * 0.8**3


@needs_matplotlib
@pytest.mark.parametrize("losses", [[4.0, 1.0, 2.0], [100.0, 0.1, 1.0]], ids=["linear", "logarithmic"])
def test_curve_puts_each_value_where_the_axes_say(tmp_path: Path, losses: list[float]) -> None:
    rows = [{"epoch": epoch, "test_loss": loss} for epoch, loss in zip((10, 11, 14), losses, strict=True)]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    left, width, top, height = 84, 774, style.HEADER - 12 + 50, 250
    if max(losses) < 20 * min(losses):
        shares = [loss / (1.06 * max(losses)) for loss in losses]
    else:
        low, high = np.log10(min(losses)), np.log10(max(losses))
        shares = [(np.log10(loss) - low + 0.06 * (high - low)) / (1.12 * (high - low)) for loss in losses]
    blue = colors_at(pixels, style.BLUE)
    for row, share in zip(rows, shares, strict=True):
        x = round(left + width * (row["epoch"] - 10 + 0.06) / 4.12)
        y = round(top + height * (1 - share))
        assert blue[y - 1 : y + 2, x - 1 : x + 2].all(), (x, y)  # the middle of a marker


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([{"epoch": 1, "test_accuracy": 0.5}, {"epoch": 2, "test_accuracy": 0.5}], 0),  # the first of equals
        ([{"epoch": 1, "test_accuracy": float("nan")}, {"epoch": 2, "test_accuracy": 0.1}], 1),
        ([{"epoch": 1, "test_loss": 2.0}, {"epoch": 2, "test_loss": 1.0}], 1),
        ([{"epoch": 1, "test_loss": 1.0, "test_accuracy": 0.1}, {"epoch": 2, "test_loss": 2, "test_accuracy": 0.9}], 1),
        ([{"epoch": 1, "test_loss": 1.0, "test_accuracy": float("nan")}], 0),
        ([{"epoch": 1, "test_loss": float("-inf")}], None),
        ([{"epoch": 1, "train_loss": 1.0}], None),
        ([], None),
    ],
)
def test_best_row(rows: list[dict[str, Any]], best: int | None) -> None:
    assert metrics.best_row(rows) == best


@needs_matplotlib
@pytest.mark.parametrize(
    ("keys", "panels"),
    [
        (["train_loss"], {"loss"}),
        (["test_accuracy"], {"error, %"}),
        (["learning_rate"], {"learning rate"}),
        (["test_loss", "learning_rate"], {"loss", "learning rate"}),
    ],
)
def test_curve_draws_only_the_panels_it_has_values_for(
    tmp_path: Path, written: list[str], keys: list[str], panels: set[str]
) -> None:
    rows = [{key: row[key] for key in ["epoch", *keys]} for row in make_rows(5)]
    decode(training_curve(rows, tmp_path / "curve.png"))
    assert {"loss", "error, %", "learning rate"} & set(written) == panels


@needs_matplotlib
def test_curve_passes_over_missing_values_but_shows_that_training_diverged(tmp_path: Path, written: list[str]) -> None:
    rows = make_rows(9)
    full = decode(training_curve(rows, tmp_path / "full.png"))
    for index in (1, 3, 5, 7):  # tested every second epoch only: the line stays a line
        del rows[index]["test_loss"], rows[index]["test_accuracy"]
        rows[index]["learning_rate"] = None
    sparse = decode(training_curve(rows, tmp_path / "sparse.png"))
    blue = colors_at(full, style.BLUE).sum()
    assert abs(colors_at(sparse, style.BLUE).sum() - blue) <= 0.25 * blue
    assert not any("not finite" in text for text in written)
    rows[4]["train_loss"], rows[6]["train_loss"] = float("nan"), float("inf")
    decode(training_curve(rows, tmp_path / "nan.png"))
    assert f"{chr(215)} not finite" in written


@needs_matplotlib
def test_curve_of_nothing_finite(tmp_path: Path, written: list[str]) -> None:
    rows = [{"epoch": 1, "train_loss": float("nan"), "test_loss": float("nan"), "learning_rate": float("nan")}]
    decode(training_curve(rows, tmp_path / "curve.png"))
    assert {"train not finite", "test not finite", "not finite"} <= set(written)


@needs_matplotlib
@pytest.mark.parametrize(
    "losses", [[0.0, 0.0], [1.0, 0.0], [1e3, 1e-3, 0.0], [-1.0, 2.0], [1e-30, 1e30], [5.0, 5.0], [3, 2]]
)
def test_curve_of_extreme_losses(tmp_path: Path, losses: list[float]) -> None:
    rows = [
        {"epoch": epoch, "test_loss": loss, "train_accuracy": 1.0, "test_accuracy": 1.0 if epoch == 1 else 0.0}
        for epoch, loss in enumerate(losses, 1)
    ]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    assert colors_at(pixels[:, 84 : 1008 - 150], style.BLUE).sum() > 20


@needs_matplotlib
def test_curve_on_a_logarithmic_axis_leads_a_zero_out_through_the_bottom(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_loss": loss} for epoch, loss in enumerate((100.0, 1.0, 0.0), 1)]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    top, middle = style.HEADER - 12 + 50, 84 + 774 // 2  # the second epoch, of value 1, is in the middle
    blue = colors_at(pixels, style.BLUE)
    assert blue[top + 243 : top + 249, middle - 2 : middle + 3].any(axis=1).all()
    assert blue[top + 244 : top + 256, 84 + 760 : 84 + 770].any()  # the ring of the best epoch, on the bottom line


@pytest.mark.parametrize(
    ("low", "high"), [(-3.2, 0.4), (0.01, 0.2), (-10, 12), (-1.0, 0.0), (-44.9, 38.0), (-0.31, 1.05)]
)
def test_log_ticks_are_few_and_within_the_axis(low: float, high: float) -> None:
    ticks = style.log_ticks(low, high)
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    assert all(low <= np.log10(tick) <= high for tick in ticks)
    if high - low >= 0.7:
        assert len(ticks) >= 2


@pytest.mark.parametrize("first", [1, 3, 7, 990])
@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 40, 90, 1000, 12345])
def test_epoch_ticks_are_whole_and_few(first: int, count: int) -> None:
    ticks = curve._epoch_ticks(first, first + count - 1)
    assert 1 <= len(ticks) <= 16
    assert ticks == sorted(set(ticks))
    assert first <= ticks[0]
    assert ticks[-1] <= first + count - 1
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], ValueError, "rows: is empty"),
        ([{"epoch": 1}], ValueError, "no row has train_loss"),
        ([{"epoch": 1, "train_loss": None}], ValueError, "no row has train_loss"),
        ([{"train_loss": 1.0}], ValueError, r"rows\[0\]: has no 'epoch'"),
        (
            [{"epoch": 1, "train_loss": 1.0}, {"epoch": 1, "train_loss": 1.0}],
            ValueError,
            "must increase, got 1 after 1",
        ),
        ([{"epoch": 1, "test_accuracy": 98.5}], ValueError, r"rows\[0\]\['test_accuracy'\]: .*0\.\.1, got 98\.5"),
        ([{"epoch": 1, "test_accuracy": -0.1}], ValueError, "must be a share in 0..1"),
        ([{"epoch": 1, "train_accuracy": float("inf")}], ValueError, "must be a share in 0..1"),
        ([{"epoch": 1.5, "train_loss": 1.0}], TypeError, "must be an integer, got 1.5"),
        ([{"epoch": True, "train_loss": 1.0}], TypeError, "must be an integer, got True"),
        ([{"epoch": 1, "train_loss": "0.1"}], TypeError, r"rows\[0\]\['train_loss'\]: must be a number"),
        ([{"epoch": 1, "train_loss": True}], TypeError, "must be a number, got True"),
        ([("epoch", 1)], TypeError, "must be a mapping"),
    ],
)
def test_curve_refuses_bad_rows(tmp_path: Path, rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        training_curve(rows, tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []
