"""What runs will take, how far they are, who waits for whom, and what the controls say of it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import quick, value_of

import emerdiff
from emerdiff import Progress
from emerdiff.batches import Results
from emerdiff.settings import PRESETS
from explorer import gpu, running, runs
from explorer.asking import Asked, values_of
from explorer.examples import examples
from explorer.runs import MODELS, Pace, Plan
from explorer.session import FINE, Found, Session

MODEL, OTHER = list(MODELS)[:2]
OWN = values_of(runs.defaults(MODEL))
PACE = Pace(2.0, 5.0, 3.0)


def asked(**changes) -> Asked:
    return Asked(**{"source": "picture.png", "model": MODEL, "preset": "exact", "values": OWN} | changes)


@pytest.fixture
def paces(monkeypatch):
    """What is known of this machine, to be filled by a test."""
    monkeypatch.setattr(runs, "_paces", known := {})
    return known


@pytest.fixture(scope="module")
def found(small, picture, tmp_path_factory):
    """A run of a small network, as the miniature's."""
    picture.save(file := tmp_path_factory.mktemp("pictures") / "picture.png")
    reading = value_of(small.read(file, quick()))
    result = replace(value_of(small.segment(reading)), model=runs.MINIATURE)
    return Found(str(file), picture, result, "fast", 1.0, reading)


# --- Before a run


def test_nothing_is_promised_before_any_model_has_run(paces):
    for model in MODELS:
        plans = {preset: runs.plan(model, preset, OWN) for preset in PRESETS}
        assert all(plan.seconds is None for plan in plans.values())
        assert plans["exact"].rows > plans["fast"].rows > plans["preview"].rows > 0
        assert runs.plan(model, "exact", OWN | {"num_segments": 5}).rows < plans["exact"].rows


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_counts_rows_to_read_then_clustering_then_rows_with_a_segment_perturbed(paces, preset):
    paces[runs.MINIATURE, preset, 256**2] = PACE
    pipe = runs.pipeline(runs.MINIATURE)
    read, perturbed = pipe.rows(pipe.settings(preset=preset, num_segments=7))
    plan = runs.plan(MODEL, preset, OWN | {"num_segments": 7})
    assert plan.parts == ((read, 2 * read), (0, 5), (0, 0), (perturbed, 3 * perturbed))
    assert plan.seconds == 2 * read + 5 + 3 * perturbed
    assert [plan.due(n) for n in (0, read, read + 1, plan.rows)] == [0, 2 * read, 2 * read + 8, plan.seconds]


def test_more_pixels_take_longer_and_what_was_seen_of_them_counts_more(paces):
    paces[runs.MINIATURE, "fast", 256**2] = PACE
    seconds = [runs.plan(MODEL, "fast", OWN | {"side": side}).seconds for side in (256, 384, 512)]
    assert seconds[0] * 2.25 < seconds[1] < seconds[0] * 3 and seconds[0] * 4 < seconds[2] < seconds[0] * 6
    paces[runs.MINIATURE, "fast", 512**2] = Pace(0, 0, 1)
    assert runs.plan(MODEL, "fast", OWN | {"side": 512}).seconds == 6 * FINE
    assert runs.plan(MODEL, "fast", OWN).seconds == seconds[0]


def test_what_has_not_run_here_goes_by_the_slowest_quality_and_a_checkpoint_by_the_miniature(paces):
    paces[runs.MINIATURE, "exact", 256**2], paces[runs.MINIATURE, "fast", 256**2] = PACE, PACE.times(2)
    assert runs.plan(MODEL, "preview", OWN).parts[-1] == (3 * FINE, 3 * FINE * 6)
    own = values_of(runs.defaults(OTHER))
    for preset, factor in {"exact": 1, "fast": 2}.items():
        rows, seconds = runs.plan(OTHER, preset, own).parts[-1]
        assert seconds == pytest.approx(rows * 3 * factor * runs.SLOWER)
    paces[MODELS[OTHER], "fast", 512**2] = PACE  # now it has run
    assert runs.plan(OTHER, "fast", own).parts[-1] == (6 * FINE, 18 * FINE)


def test_a_side_is_at_least_the_models_own():
    for model, sides in {MODEL: (256, 384, 512, 768), OTHER: (512, 512, 512, 768)}.items():
        areas = [runs.settings_of(model, "fast", {"side": side}).image_area for side in runs.SIDES]
        assert areas == [side**2 for side in sides]
    for side in (0, None, -1, 100, 1e9, "256"):
        with pytest.raises(ValueError, match="side must be one of 256, 384, 512, 768"):
            runs.settings_of(MODEL, "fast", {"side": side})


def test_what_is_read_already_and_what_is_only_painted_is_all_that_counts(paces, found, monkeypatch, small):
    monkeypatch.setattr(runs, "_for_counting", lambda _: small)
    paces[runs.MINIATURE, "fast", found.segmentation.settings.image_area] = PACE
    steps = 4
    for reading, read in ((found.reading, 0), (None, steps)):
        plan = runs.plan_again(found.made_of, reading, painted=2)
        assert plan.rows == read + 2 * steps and plan.seconds == 2 * read + 3 * 2 * steps
        plan = runs.plan_again(found.made_of, reading, num_segments=3)
        assert plan.rows == read + 2 * 3 * steps and plan.seconds == 2 * read + 5 + 3 * 2 * 3 * steps


def test_calibrating_makes_runs_of_all_models_and_presets_known(paces, small, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_pipelines", {runs.MINIATURE: small})
    monkeypatch.setattr(runs, "defaults", lambda _: quick())
    picture.save(tmp_path / "picture.png")
    runs.calibrate(tmp_path / "picture.png")
    assert all(runs.plan(model, preset, {}).seconds > 0 for model in MODELS for preset in PRESETS)


# --- During a run


@pytest.fixture(scope="module")
def of_small(small, picture, tmp_path_factory):
    """A function that runs a small network in the place of the miniature: its progress, and what it found."""
    picture.save(file := tmp_path_factory.mktemp("pictures") / "picture.png")
    values = {name: getattr(quick(), name) for name in ("num_inference_steps", "modulation_timestep", "image_area")}

    def run(**options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "_pipelines", {runs.MINIATURE: small})
            patch.setattr(runs, "_paces", paces := {})
            more = {"num_segments": 5, "kmeans_n_init": 1, "feature_timestep": 1, "feature_draws": 1}
            work = runs.find(file, MODEL, "fast", values | more, name=runs.MINIATURE, **options)
            events = list(results := Results(work))
            return events, results.value, paces

    return run


def test_a_run_counts_what_it_computes_and_is_learned_from(of_small):
    events, found, paces = of_small()
    assert [e.total for e in events] == [4 + 5 * 4] * len(events) and events[-1].done == events[-1].total
    assert all(a.done <= b.done for a, b in zip(events, events[1:], strict=False))
    (pace,) = paces.values()
    assert list(paces) == [(runs.MINIATURE, "fast", 64 * 64)]
    assert 4 * pace.reading + pace.clustering + 20 * pace.perturbing == pytest.approx(found.seconds, rel=0.2)
    again, same, paces = of_small(previous=found.reading)
    assert {e.total for e in again} == {5 * 4} and not paces  # nothing was read: no pace of reading
    np.testing.assert_array_equal(same.segmentation.labels, found.segmentation.labels)


def test_a_rough_pass_comes_first_shares_the_reading_and_leaves_the_result_as_it_is(of_small):
    events, found, _ = of_small(first_in=3)
    assert {e.total for e in events} == {4 + 3 * 3 + 5 * 4} and events[-1].done == 4 + 9 + 20
    sketches = [e.sketch for e in events if e.sketch]
    rough = sketches[-1]
    assert not sketches[0].known.any() and rough.known is None and rough.settings.num_segments == 3
    assert (rough.settings.replay_steps, rough.settings.two_sided) == (3, False)
    plain = of_small()[1].segmentation
    np.testing.assert_array_equal(rough.coarse_labels, emerdiff.recut(plain, 3).coarse_labels)
    np.testing.assert_array_equal(found.segmentation.responses, plain.responses)


@pytest.mark.parametrize(
    "plan, done, seconds, left",
    [
        (Plan(((10, 10.0),)), 0, 0, 10),
        (Plan(((10, 10.0),)), 5, 5, 5),  # as planned
        (Plan(((10, 10.0),)), 10, 20, 0),
        (Plan(((10, 10.0),)), 5, 10, (10 + 1.5) / (5 + 1.5) * 5),  # half as fast: nearly twice as long
        (Plan(((10, 10.0),)), 0, 30, 30 / 1.5 * 10 + 10),
        (Plan(((10, 10.0), (0, 5.0), (10, 30.0))), 10, 10, 35),  # clustering is still to come
        (Plan(((10, 10.0), (0, 5.0), (10, 30.0))), 11, 18, 27),
        (Plan(((10, 10.0),), is_known=False), 0, 9, None),
        (Plan(((10, 10.0),), is_known=False), 5, 2, None),  # too soon to tell
        (Plan(((10, 10.0),), is_known=False), 5, 20, 20),
    ],
)
def test_how_much_is_left_begins_with_what_was_planned_and_follows_what_is_seen(plan, done, seconds, left):
    assert gpu.left_of(plan, done, seconds) == (None if left is None else pytest.approx(left))


def test_a_screen_reader_is_told_of_stages_and_quarters_only(monkeypatch):
    plan = Plan(((100, 50.0),))
    work = iter([plan, *(Progress("perturbing segments", done, 100) for done in range(0, 101, 5))])
    said = list(gpu.watched((item for item in work), lambda said, _: said))
    assert [s["done"] for s in said] == pytest.approx(np.arange(0, 1.01, 0.05))
    assert list(dict.fromkeys(s["told"] for s in said)) == [f"Perturbing segments: {q}%" for q in (0, 25, 50, 75, 100)]
    assert all("left" in s["text"] for s in said)
    assert gpu.status(Progress("loading x", 0, 1))["text"] == "Loading x …"


# --- Who waits for whom


def test_who_waits_is_told_how_many_are_ahead(monkeypatch):
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(gpu, "_heard", {})
    monkeypatch.setattr(gpu, "_waiting", {})
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now.time)
    first, second, third, fourth = (asked() for _ in range(4))
    assert [gpu.ahead(one) for one in (first, second, third, fourth)] == [0, 1, 2, 3]
    first.begun.set()
    gpu._heard[object()] = now.time
    assert [gpu.ahead(one) for one in (second, third, fourth)] == [1, 2, 3]
    second.dropped.set()
    third.stopped.set()
    assert gpu.ahead(fourth) == 1
    assert running.told_to_wait(fourth)["text"] == "Waiting, 1 ahead"
    gpu._heard.clear()
    assert running.told_to_wait(fourth)["text"] == "Starting …"
    late = asked()
    assert gpu.ahead(late) == 1
    now.time += gpu.WAITS + 1  # the fourth's page was closed
    assert gpu.ahead(late) == 0


# --- What the controls say


def test_settings_that_moved_away_from_what_is_shown_are_said_and_no_longer_when_they_moved_back(found, paces):
    paces[runs.MINIATURE, "fast", 256**2] = PACE
    last = asked(source=found.source, preset="fast")
    shown = Session(replace(found, reading=None), 3)

    def hint(session=shown, preset="fast", to_run=None, of=last, **changes):
        return running.hint_of(of, to_run, session, MODEL, preset, OWN | changes)

    assert hint() == "" == hint(strength=float(OWN["strength"]))
    for changes in ({"strength": 3}, {"seed": 1}, {"side": 384}, {"preset": "exact"}):
        assert hint(**changes).startswith("**Settings changed: run to update** (about")
    assert hint(session=None) == f"A run takes about {running.duration(runs.plan(MODEL, 'fast', OWN).seconds)}."
    assert hint(session=None, to_run=last) == ""  # it is on its way
    assert hint(session=None, to_run=last, strength=3).startswith("**Settings changed")
    last.ended.set()
    assert hint(session=None, to_run=last).startswith("A run takes")
    known = np.arange(4) < 2
    sketch = replace(found.segmentation, known=known)
    assert hint(session=Session(replace(found, segmentation=sketch), 3)).startswith("A run takes")
    last.stopped.set()
    assert hint().startswith("A run takes")  # what is shown is an earlier one's


def test_a_result_of_the_same_settings_is_better_than_a_sketch_whatever_its_quality(found):
    used = values_of(found.segmentation.settings)
    of = asked(source=found.source, preset="exact", values=used)
    sketch = replace(found.segmentation, known=np.arange(4) < 2)
    assert running.is_rougher(Session(found, 3), of)
    assert not running.is_rougher(Session(replace(found, segmentation=sketch), 3), of)
    assert not running.is_rougher(Session(found, 3), replace(of, source="another.png"))
    assert not running.is_rougher(Session(found, 3), replace(of, values=used | {"seed": 7}))
    assert not running.is_rougher(Session(found, 3), replace(of, model=OTHER))
    assert not running.is_rougher(None, of)


def test_a_model_that_is_not_here_is_said_to_be_not_installed(monkeypatch, paces):
    paces[runs.MINIATURE, "exact", 256**2] = PACE
    monkeypatch.setattr(runs, "_pipelines", {runs.MINIATURE: runs.pipeline(runs.MINIATURE)})
    assert runs.is_installed(MODEL) and not runs.is_installed(OTHER)
    assert "not installed, and this machine is offline" in running.why_not("a.png", OTHER)
    monkeypatch.setattr(runs.constants, "HF_HUB_OFFLINE", False)
    assert running.why_not("a.png", OTHER) == ""
    hint = running.hint_of(None, None, None, OTHER, "exact", values_of(runs.defaults(OTHER)))
    assert hint == "A run takes long the first time: the model is not installed, and several GB are downloaded."
    assert running.why_not(None, MODEL) == "Choose a picture first."
    assert not running.is_soon(OTHER, "preview", OWN, 5)


def test_nothing_runs_unasked_where_it_takes_long_or_spends_a_quota(monkeypatch, paces):
    assert not running.is_soon(MODEL, "fast", OWN, 5)  # nobody knows how long it takes
    paces[runs.MINIATURE, "fast", 256**2] = Pace(0.01, 0.1, 0.01)
    assert running.is_soon(MODEL, "fast", OWN, 5)
    monkeypatch.setattr(running, "spaces", object())
    assert not running.is_soon(MODEL, "fast", OWN, 5)
    monkeypatch.setattr(running, "spaces", None)
    paces[runs.MINIATURE, "fast", 256**2] = Pace(1, 1, 1)
    assert not running.is_soon(MODEL, "fast", OWN, 5)


def test_defaults_are_those_of_the_picture():
    drawn = next(example for example in examples() if example.summary)
    assert running.own_values(str(drawn.picture), MODEL) == values_of(drawn.settings)
    assert running.own_values("mine.png", MODEL) == running.own_values(None, MODEL) == OWN
    assert running.own_values(str(drawn.picture), OTHER) == values_of(runs.defaults(OTHER))


def test_buttons_that_cannot_act_say_why(found, paces):
    whole = Session(replace(found, reading=None), 3)
    sketch = Session(replace(found, segmentation=replace(found.segmentation, known=np.arange(4) < 2)), 3)
    exact = whole.recomputed(emerdiff.recut(found.segmentation, 3))
    cannot = {"no result yet": (None, whole.gone()), "after a whole run": (sketch,), "done": (exact,)}
    for session, why in ((session, why) for why, sessions in cannot.items() for session in sessions):
        assert running.recomputing_of(session) == {"interactive": False, "value": f"Recompute at this k ({why})"}
    assert running.recomputing_of(whole) == {"interactive": True, "value": "Recompute at this k"}
    paces[runs.MINIATURE, "fast", 256**2] = PACE
    assert "(about " in running.recomputing_of(whole)["value"]
    last = asked(source=found.source, preset="fast")
    assert "Refine exactly (about" in running.refining_of(whole, last)["value"]
    published = Session(replace(found, preset="exact"), 3)
    for session in (None, published):
        assert running.refining_of(session, last) == {"visible": False}


def test_a_stopped_run_is_a_result_that_says_how_much_of_it_is_known(found):
    of = asked()
    of.so_far.plain = SimpleNamespace(shown=found.shown)
    sketch = replace(found.segmentation, known=np.array([True, False, True, True]))
    stopped = running.sketched(of, sketch)
    assert stopped.segmentation.notes[-1] == "A sketch: 3 of 4 segments are known." and stopped.preset == "exact"
    session = Session.of(stopped, 4)
    naive = session.naive_labels
    unknown = ~session.segmentation.known[naive]
    assert unknown.any() and (session.labels[unknown] == naive[unknown]).all()
    assert (session.labels != naive).any() and stopped.segmentation.notes[-1] in session.cut(2).segmentation.notes
    rough = running.sketched(of, found.segmentation)
    assert rough.preset == "preview" and "rough pass" in rough.segmentation.notes[-1]
