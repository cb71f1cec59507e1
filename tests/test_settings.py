import inspect
import math
import sys
from dataclasses import FrozenInstanceError, fields, replace
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from emerdiff import Settings, settings

NUMERIC = [f.name for f in fields(Settings) if "range" in f.metadata]
WHOLE = [name for name in NUMERIC if name not in ("strength", "smoothing", "merge_height")]
SWITCHES = [f.name for f in fields(Settings) if f.name not in NUMERIC]


def message(name, value) -> str:
    with pytest.raises(ValueError) as caught:
        Settings(**{name: value})
    return str(caught.value)


def test_defaults_are_the_papers_and_its_notebooks():
    s = Settings()
    assert (s.feature_timestep, s.modulation_timestep, s.strength, s.num_inference_steps) == (1, 281, 10.0, 50)
    assert (s.smoothing, s.kmeans_n_init, s.seed, s.attention_injection, s.keep_aspect) == (0.8, 100, 42, True, True)


def test_every_field_is_a_number_with_a_range_or_a_switch():
    assert SWITCHES == ["two_sided", "magnified_decoding", "keep_aspect", "attention_injection"]
    assert Settings.range_of("num_segments") == (2, 256) and Settings.range_of("smoothing") == (0, 20)


@pytest.mark.parametrize("name", NUMERIC)
def test_both_ends_of_the_range_are_accepted(name):
    for value in Settings.range_of(name):
        assert getattr(Settings(**{name: value}), name) == value


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("end", [0, 1])
def test_a_value_beyond_the_range_is_refused_with_name_range_and_value(name, end):
    low, high = Settings.range_of(name)
    beyond = (low - 1, high + 1)[end]
    text = message(name, beyond)
    assert text.startswith(f"{name} must be") and f"from {low} to {high}" in text and f"not {beyond}" in text


@pytest.mark.parametrize("name", ["strength", "smoothing"])
def test_a_value_just_beyond_the_range_is_refused(name):
    low, high = Settings.range_of(name)
    message(name, math.nextafter(low, -1))
    message(name, math.nextafter(high, math.inf))


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "5", "", b"5", True, False, np.True_, 5j, [5], {}])
def test_what_is_not_a_number_is_refused(name, value):
    assert message(name, value).endswith(f"not {value!r}")


NONE_ALLOWED = {"image_area", "merge_height", "replay_steps", "modulation_layer"}


@pytest.mark.parametrize("name", sorted({*NUMERIC} - NONE_ALLOWED))
def test_none_is_refused_but_where_it_has_a_meaning(name):
    assert message(name, None).endswith("not None")


@pytest.mark.parametrize("name", sorted(NONE_ALLOWED))
def test_none_is_allowed_and_said_so(name):
    assert getattr(Settings(**{name: None}), name) is None
    assert message(name, -1).endswith("or None, not -1")


@pytest.mark.parametrize("name", NUMERIC)
def test_a_number_too_large_for_a_float_is_refused(name):
    assert message(name, 10**400).startswith(f"{name} must be")
    message(name, -(10**400))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_may_come_as_floats(name):
    low, high = Settings.range_of(name)
    whole = min(max(low, 20), high)
    for value in (float(whole), np.float32(whole), np.int64(whole)):
        kept = getattr(Settings(**{name: value}), name)
        assert kept == whole and type(kept) is int
    assert "must be a whole number" in message(name, whole + 0.5)


def test_the_largest_seed_survives_unrounded():
    assert Settings(seed=2**63 - 1).seed == 2**63 - 1
    assert "not 9223372036854775808" in message("seed", 2**63)


@pytest.mark.parametrize("value", [3, np.float32(3), np.int16(3), Fraction(3)])
def test_any_real_number_becomes_a_float_where_a_float_is_meant(value):
    strength = Settings(strength=value).strength
    assert strength == 3.0 and type(strength) is float


def test_checks_hold_where_annotations_are_strings(monkeypatch):
    module = ModuleType("settings_with_strings")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("from __future__ import annotations\n" + inspect.getsource(settings), module.__dict__)
    types = {"int", "int | str", "float", "float | None", "bool", "int | None"}
    assert {f.type for f in fields(module.Settings)} == types
    for name in SWITCHES:
        with pytest.raises(ValueError, match=f"{name} must be True or False, not 1"):
            module.Settings(**{name: 1})
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        module.Settings(seed=0.5)
    assert type(module.Settings(strength=3).strength) is float


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, None, "True", "false", np.True_, 1.0])
def test_switches_are_true_or_false(name, value):
    assert message(name, value) == f"{name} must be True or False, not {value!r}"
    assert getattr(Settings(**{name: False}), name) is False


def test_settings_cannot_be_changed_but_copied_with_changes_that_are_checked():
    own = Settings()
    with pytest.raises(FrozenInstanceError):
        own.strength = 3
    assert replace(own, strength=3) == Settings(strength=3) != own
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1000, not -1"):
        replace(own, strength=-1)


def test_a_pipelines_settings_start_from_its_defaults_and_are_checked(small):
    assert small.settings(num_segments=7) == Settings(num_segments=7)
    with pytest.raises(ValueError, match="num_segments must be a whole number from 2 to 256, not 1"):
        small.settings(num_segments=1)
