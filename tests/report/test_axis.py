from __future__ import annotations

import pytest

from gex_pipeline.report.axis import value_axis


def test_a_wide_range_is_logarithmic() -> None:
    axis = value_axis(1.0, 100.0, 10)
    assert axis.is_log
    assert axis.position(10.0) == pytest.approx(0.5)
    assert axis.ticks == (1, 2, 5, 10, 20, 50, 100)


def test_a_narrow_range_is_linear() -> None:
    axis = value_axis(2.0, 4.0, 10)
    assert not axis.is_log
    assert axis.position(3.0) == pytest.approx(0.5)
    assert axis.ticks == (2.0, 2.5, 3.0, 3.5, 4.0)


def test_whole_values_stand_inside_bins_even_on_a_logarithmic_axis() -> None:
    axis = value_axis(1, 200, 36, whole=True)
    assert axis.is_log
    assert all(edge % 1 == 0.5 for edge in axis.edges)
    assert axis.edges[:4] == (0.5, 1.5, 2.5, 3.5)


@pytest.mark.parametrize("value", [0.0, -3.0, 7.0])
def test_a_single_value_has_an_axis(value: float) -> None:
    axis = value_axis(value, value, 5)
    assert axis.edges[0] < value < axis.edges[-1]


def test_what_lies_outside_stands_at_the_end() -> None:
    axis = value_axis(1.0, 100.0, 10)
    assert (axis.position(0.001), axis.position(5000.0)) == (0.0, 1.0)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (1 / 3, 1e6 / 7), (-0.2, 1.0), (3.0, 3.0)])
def test_edges_reach_from_the_smallest_to_the_largest_value(low: float, high: float) -> None:
    axis = value_axis(low, high, 36)
    assert axis.edges[0] <= low
    assert axis.edges[-1] >= high
    assert list(axis.edges) == sorted(set(axis.edges))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (9.9, 10.1, ("9.90", "9.95", "10.00", "10.05", "10.10")),
        (100.0, 100.4, ("100.0", "100.1", "100.2", "100.3", "100.4")),
        (0.0, 1.0, ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        (-0.2, 0.2, ("\u22120.2", "\u22120.1", "0.0", "0.1", "0.2")),
        (0, 8000, ("0", "2\u202f000", "4\u202f000", "6\u202f000", "8\u202f000")),
        (0.004, 30, ("0.01", "0.1", "1", "10")),
    ],
)
def test_labels_are_their_ticks(low: float, high: float, labels: tuple[str, ...]) -> None:
    assert value_axis(low, high, 10).labels == labels


@pytest.mark.parametrize("low", [-3.0, 0.0, 0.3, 1.0, 99.87, 3599.9])
@pytest.mark.parametrize("span", [0.0, 1e-12, 1e-8, 1e-6, 0.0003, 0.07, 1.0, 12.5, 900.0, 1e6])
def test_no_two_labels_of_an_axis_are_the_same(low: float, span: float) -> None:
    """With three digits each, ticks from 9.9 to 10.1 had the labels 9.9, 9.95, 10, 10.1 and 10.1."""
    axis = value_axis(low, low + span, 10)
    written = [label.replace("\u202f", "").replace("\u2212", "-") for label in axis.labels]
    assert len(set(written)) == len(written) >= 2
    assert [float(label) for label in written] == list(axis.ticks)


def test_a_wide_range_is_linear_where_that_is_asked_for() -> None:
    axis = value_axis(0.01, 0.9, 10, linear=True)
    assert not axis.is_log
    assert axis.position(0.455) == pytest.approx(0.5)
