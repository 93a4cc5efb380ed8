"""The bench of flags: its fleet is what it says, its records are a log, and what it counts is what was told."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infra.bench import flags, flags_calm
from infra.bench.flags_calm import Told, records
from infra.bench.flags_fleet import FAULTS, LASTS_MINS, MINUTE_MS, READINGS, START_MS, Fleet, stretch
from infra.fleet.signals import METRICS, values

FLEET = Fleet(healthy=2, faulty=1, days=1)
TEMPERATURE = METRICS.index("temperature")


def test_a_stretch_made_alone_is_the_same() -> None:
    """However the history is cut, its rollups are equal to the bit."""
    whole, part = stretch(FLEET, 800, 40), stretch(FLEET, 817, 5)
    for name in ("bucket", "there", "mean", "m2", "min", "max"):
        np.testing.assert_array_equal(getattr(whole, name)[17:22], getattr(part, name))


def test_healthy_rollups_are_those_of_the_fleets_readings() -> None:
    """Of one device and minute, recomputed one reading at a time from the signals."""
    made = stretch(FLEET, 300, 1)
    at = list(range(START_MS + 300 * MINUTE_MS, START_MS + 301 * MINUTE_MS))
    every = values(FLEET.seed, np.ones(len(at), np.int64), np.array(at))["temperature"]
    step = MINUTE_MS // READINGS
    rollups = [every[phase::step] for phase in range(step)]
    found = [r for r in rollups if np.isclose(r.mean(), made.mean[0, TEMPERATURE, 1], rtol=0, atol=1e-12)]
    assert any(
        (r.min(), r.max()) == (made.min[0, TEMPERATURE, 1], made.max[0, TEMPERATURE, 1])
        and np.isclose(((r - r.mean()) ** 2).sum(), made.m2[0, TEMPERATURE, 1])
        for r in found
    )


def test_each_fault_does_what_it_is_called() -> None:
    """And nothing before it: without faulty devices the same readings are made."""
    for number, fault in enumerate(FAULTS):
        device = FLEET.healthy + number
        assert fault == FLEET.fault_of(device)
        begin = int(FLEET.begins()[device])
        made, plain = (stretch(fleet, begin - 3, 33) for fleet in (FLEET, Fleet(FLEET.devices, 0, days=1)))
        same = made.mean[:, :, device] == plain.mean[:, :, device]
        assert same[:3].all()
        there, after = made.there[:, device], made.mean[3:, TEMPERATURE, device] - plain.mean[3:, TEMPERATURE, device]
        match fault:
            case "spike":
                assert (round(after[0]), abs(after[1:]).max()) == (60, 0)
            case "step":
                assert np.allclose(after, 40)
            case "drift":
                assert np.allclose(after, 0.2 * np.arange(30))
            case "stuck":
                assert len({*made.min[3:, TEMPERATURE, device], *made.max[3:, TEMPERATURE, device]}) == 1
            case "silence":
                assert there[:3].all()
                assert not there[3:].any()
            case _:
                assert np.abs(after).max() > 10
        others = [place for place in range(len(METRICS)) if place != TEMPERATURE]
        assert same[:, others].all()


def test_a_silent_device_returns_after_half_a_day() -> None:
    """So that its episode can close."""
    fleet = Fleet(healthy=2, faulty=1, days=7)
    device = fleet.healthy + list(FAULTS).index("silence")
    end = int(fleet.begins()[device]) + LASTS_MINS
    assert [False, True] == stretch(fleet, end - 1, 2).there[:, device].tolist()


def test_records_are_a_log() -> None:
    """Offsets count through rollups and closings; each closing stands behind the rollups of its window."""
    names = [f"d{number}" for number in range(FLEET.devices)]
    begin = int(FLEET.begins()[FLEET.healthy + list(FAULTS).index("silence")])
    slice_ = records(stretch(FLEET, begin - 2, 4), names, 1000)
    offsets = sorted([*slice_.rollups["offset"], *(offset for offset, _ in slice_.closed)])
    assert list(range(1000, slice_.end)) == offsets
    assert [4 * FLEET.devices] * 2 + [4 * (FLEET.devices - 1)] * 2 == slice_.rollups.group_by("bucket").len().sort(
        "bucket"
    )["len"].to_list()
    for offset, end in slice_.closed:
        before = slice_.rollups.filter(pl.col("offset") < offset)["bucket"].max()
        assert before == end - MINUTE_MS


def test_what_is_counted_is_what_was_told() -> None:
    """Healthy devices make the calm; of broken ones the first episode since the fault counts, within a day."""
    fleet = Fleet(healthy=2, faulty=2, days=14)
    begins = fleet.begins().tolist()
    told = [
        Told(0, "temperature", "novelty", 5, 9),
        Told(0, "running", "stuck", 6, None),
        Told(2, "temperature", "novelty", begins[2] - 1, begins[2]),  # before the spike: not of it
        Told(2, "temperature", "novelty", begins[2] + 3, None),
        Told(3, "temperature", "novelty", begins[3] + 2000, begins[3] + 2010),  # far too late
    ]
    assert {"novelty": 0.25, "stuck": 0.25, "rate": 0.0} == flags_calm.calm(fleet, told, ["novelty", "stuck", "rate"])
    assert flags_calm.worst(fleet, told) == 1.0
    spike, step, *_ = flags_calm.found(fleet, told)
    assert (spike.devices, spike.found, spike.delays_mins, spike.once) == (2, 1, [3], 2)
    assert (spike.opened, spike.closed) == (2, 1)
    assert (step.found, step.opened) == (0, 0)


def test_it_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A day of a few devices: tables of calm, found and cost, and all episodes as JSON."""
    arguments = ["--devices", "2", "--faulty", "1", "--days", "1", "--series", "40", "--out", str(tmp_path)]
    assert flags.main(arguments) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "flags.md").read_text() in said
    for words in ("| novelty | ", "| spike | ", "CPU s a minute", "aim: at most 1"):
        assert words in said
    whole = json.loads((tmp_path / "flags.json").read_text())
    assert list(FAULTS) == [one["fault"] for one in whole["found"]]
    assert whole["cost"]["readings"] == 800


def test_wrong_rules_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they are where the dataflow starts."""
    (tmp_path / "r.yaml").write_text("rules: [{name: x}]\n")
    assert flags.main(["--rules", str(tmp_path / "r.yaml")]) == 1
    assert "says no detector" in capsys.readouterr().err
