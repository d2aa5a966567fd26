"""Figures are held against bounds from below and from above."""

import json

from benchmarks import report

FIGURES = {"speed_up": 3.0, "cost": 0.5}


def test_a_target_is_missed_from_below() -> None:
    assert report.missed(FIGURES, {"speed_up": 3.0}) == []
    assert report.missed(FIGURES, {"speed_up": 3.1}) == ["speed_up"]


def test_a_limit_is_missed_from_above() -> None:
    assert report.missed(FIGURES, {}, {"cost": 0.5}) == []
    assert report.missed(FIGURES, {"speed_up": 4.0}, {"cost": 0.4}) == ["cost", "speed_up"]


def test_limits_are_in_the_line_where_there_are_any() -> None:
    line = json.loads(report.json_line(FIGURES, {"speed_up": 4.0}))
    assert line == {"figures": FIGURES, "targets": {"speed_up": 4.0}, "missed": ["speed_up"]}
    line = json.loads(report.json_line(FIGURES, {}, {"cost": 0.4}))
    assert line == {"figures": FIGURES, "targets": {}, "limits": {"cost": 0.4}, "missed": ["cost"]}
