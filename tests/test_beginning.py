"""What the page begins with, by what is known of the machine: only these facts are pretended."""

from dataclasses import replace

import gradio as gr
import pytest
import torch
from conftest import save_as_stable_diffusion, shows, small_parts, unfold, value_of
from playwright.sync_api import expect
from test_app import served
from test_loading import save_tiny_autoencoder
from test_visitors import result, session

import app
import emerdiff
from emerdiff.loading import CHECKPOINTS, MINIATURE
from emerdiff.settings import PRESETS
from emerdiff.starting import LACKING, STABLE_DIFFUSION, STABLE_DIFFUSION_LIGHT, Facts
from explorer import examples as example_store
from explorer import gpu, running, runs
from explorer.asking import Asked
from explorer.code import code
from explorer.examples import examples
from explorer.links import Link
from explorer.opening import of_example
from explorer.runs import Pace
from explorer.visitors import Visitors

CPU, GPU, ZEROGPU = Facts("cpu", False, False), Facts("cuda", False, True), Facts("cuda", True, True)
SD, LIGHT = "Stable Diffusion 1.5", "Stable Diffusion, light"


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Begins the page anew, as if these were the facts; what the Hub's cache holds is in a folder of the test's."""
    models = dict(runs.MODELS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(runs, "_pipelines", {MINIATURE: runs.pipeline(MINIATURE)})
    monkeypatch.setattr(runs, "_defaults", {})
    monkeypatch.setattr(runs, "_paces", {})
    monkeypatch.setattr(example_store, "CACHE", tmp_path / "examples")

    def begin(facts: Facts):
        monkeypatch.setattr(runs, "facts", lambda: facts)
        runs.started.cache_clear()
        return runs.started()

    yield begin
    runs.MODELS.clear()
    runs.MODELS.update(models)
    runs.started.cache_clear()


@pytest.fixture
def installed(tmp_path):
    """In the Hub's cache, a small network of random weights instead of Stable Diffusion's."""
    name = f"models--{STABLE_DIFFUSION.replace('/', '--')}"
    folder = tmp_path / "hub" / name / "snapshots" / CHECKPOINTS[STABLE_DIFFUSION]
    return save_as_stable_diffusion(folder, small_parts())


def built() -> tuple[gr.Blocks, dict[str, object]]:
    """The page, and what it begins with: model, sides, whether photographs come first, and the note."""
    demo = app.create_demo()
    by_id = {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}
    sides = next(block for block in demo.blocks.values() if getattr(block, "label", "") == "Detail")
    is_foreign = by_id["model"].value != "Miniature"  # what is stored of the examples is the miniature's
    assert ("This is the miniature's result" in by_id["summary"].value) == is_foreign
    return demo, {
        "model": by_id["model"].value,
        "side": sides.value,
        "photograph": examples()[by_id["strip"].value].truth is None,
        "note": by_id["note"].value,
    }


@pytest.mark.parametrize("facts", [GPU, ZEROGPU])
def test_with_a_gpu_the_page_begins_with_stable_diffusion_and_photographs(begin, installed, facts):
    assert begin(facts).quick and list(runs._pipelines) == [MINIATURE, STABLE_DIFFUSION]
    assert built()[1] == {"model": SD, "side": 128, "photograph": True, "note": ""}  # 128: the small network's own
    asked = of_example(0)
    assert (asked.model, asked.preset, asked.values["side"]) == (SD, "exact", 128)
    assert running.own_result_of(asked.source, asked.model, asked.preset, asked.values) == 0


def test_an_examples_own_result_is_that_of_the_model_that_the_page_begins_with(begin, installed, monkeypatch):
    monkeypatch.setattr(runs, "own_preset", lambda _: "preview")  # for speed
    begin(GPU)
    asked = of_example(0)
    assert example_store.found(examples()[0]) is None
    own = value_of(running.found_for(asked, None, Visitors(), lambda said, _: said))
    assert own.segmentation.model == STABLE_DIFFUSION and own.segmentation.settings.image_area == 128**2
    assert example_store.found(examples()[0]) is own and own.shared
    assert value_of(running.found_for(asked, None, Visitors(), lambda said, _: said)) is own
    example = examples()[0]
    begin(CPU)
    assert example_store.found(example) is None  # the miniature has its own
    assert example_store.keep(example, own) is own and example_store.found(example) is None


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        (CPU, ""),
        (Facts("mps", False, True), ""),
        (Facts("cuda", False, False), LACKING),
        (GPU, "Stable Diffusion cannot be loaded here, so the page starts with the miniature."),
        (Facts("cpu", False, False, "/nowhere"), "The model that this page's owner chose cannot be loaded here, so the "
        "page starts with the miniature."),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_and_the_page_begins_with_the_miniature(begin, facts, note):
    assert begin(facts).model == MINIATURE
    assert built()[1] == {"model": "Miniature", "side": 256, "photograph": False, "note": note}
    assert list(runs.MODELS.values())[:2] == [MINIATURE, STABLE_DIFFUSION] and len(runs.MODELS) == 5


def test_a_wish_that_fails_on_a_gpu_leads_to_stable_diffusion(begin, installed):
    begun = begin(Facts("cuda", False, True, "/nowhere"))
    assert begun.model == STABLE_DIFFUSION and begun.photographs_first and begun.note.endswith(f"starts with {SD}.")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_owners_folder_can_be_chosen_and_linked_to_but_no_other(begin, checkpoint, tmp_path, device):
    begin(Facts(device, False, False, f"{checkpoint}"))
    demo, what = built()
    assert what == {"model": checkpoint.name, "side": 128, "photograph": True, "note": ""}
    assert runs.MODELS[checkpoint.name] == str(checkpoint) and runs.is_installed(checkpoint.name)
    assert runs.pipeline_of(checkpoint.name) is runs.pipeline(str(checkpoint))
    run = {"k": 3, "modulation_timestep": 281, "strength": 10, "feature_timestep": 1, "smoothing": 0.8, "seed": 42}
    link = Link(model=str(checkpoint), side=128, example=examples()[0].name, **run)
    assert Link.parse({"model": str(checkpoint), "side": "128", "example": link.example} | {
        name: str(value) for name, value in run.items()
    }) == link  # fmt: skip
    other = save_as_stable_diffusion(tmp_path / "other", small_parts())
    with pytest.raises(ValueError, match="there is no model"):
        Link(model=str(other), example=examples()[0].name, **run)
    with pytest.raises(ValueError, match="choose one of these models"):
        runs.pipeline_of(str(other))
    opened = next(fn.fn for fn in demo.fns.values() if fn.name == "restore")
    filled = opened(asked=None, view="slider", request=gr.Request(query_params={}))
    begins = [value for value in filled.values() if isinstance(value, Asked)]
    assert len(begins) == (2 if device == "cuda" else 1)  # asked for in both cases, but run unasked only on a GPU
    values = of_example(0).values
    assert running.hint_of(of_example(0), None, None, checkpoint.name, "exact", values).startswith("A run takes")



def test_each_model_has_a_line_on_what_it_knows_and_costs(begin, monkeypatch, checkpoint):
    begin(CPU)
    lines = dict(map(reversed, running.offers()))
    assert list(lines) == list(runs.MODELS)
    assert lines["Miniature"] == "Miniature · knows drawn scenes"
    assert lines[SD] == f"{SD} · knows photographs · not installed"
    assert lines[LIGHT] == f"{LIGHT} · knows photographs less well · not installed"
    runs._paces.update({(MINIATURE, preset, 256**2): Pace(0.01, 0.1, 0.02) for preset in PRESETS})
    monkeypatch.setattr(runs, "at_hand", lambda *_: True)
    lines = dict(map(reversed, running.offers()))
    assert all(" · about " in line for line in lines.values())
    with monkeypatch.context() as patch:
        patch.setattr(runs, "best_device", lambda: torch.device("cuda"))  # where nobody knows before it has run
        assert runs.plan(SD, "exact", {}).seconds is None and runs.plan("Miniature", "exact", {}).seconds
        assert dict(map(reversed, running.offers()))[SD] == f"{SD} · knows photographs"
    monkeypatch.setattr(running, "spaces", object())
    assert all(line.endswith(" of GPU time") for line, _ in running.offers())
    begin(Facts("cpu", False, False, str(checkpoint)))
    assert f"{checkpoint.name} · chosen by this page's owner" in running.offers()[-1][0]


def test_the_light_model_sees_small_pictures_and_is_the_quicker_one(begin):
    begin(CPU)
    assert runs.MODELS[LIGHT] == STABLE_DIFFUSION_LIGHT
    assert runs.own_preset(LIGHT) == "preview" and runs.own_preset(SD) == "exact"
    assert runs.sides(LIGHT) == (384, 512, 768) and runs.sides(SD) == (512, 768) and runs.native_side(LIGHT) == 512
    assert runs.settings_of(LIGHT, "preview", {"side": 256}).image_area == 384**2
    runs._paces.update({(MINIATURE, preset, 256**2): Pace(0.01, 0.1, 0.02) for preset in PRESETS})
    seconds = [runs.plan(model, "preview", {"side": 512}).seconds for model in (LIGHT, SD)]
    assert seconds[0] < seconds[1] / 2


def test_code_loads_what_the_page_has_loaded():
    settings = runs.settings_of(LIGHT, "preview", {"num_segments": 4})
    light = replace(result(), model=STABLE_DIFFUSION_LIGHT, settings=settings)
    shown = code(session(segmentation=light, preset="preview"))
    assert f"emerdiff.load('{STABLE_DIFFUSION_LIGHT}', autoencoder='automatic')" in shown
    assert f"pipe.settings(num_segments=4, preset='preview', image_area={384**2})" in shown
    assert "emerdiff.load('miniature')" in code(session())


def test_sides_are_from_a_models_own_up(begin, tmp_path):
    for native, sides in {512: (512, 768), 768: (768,), 1024: (1024,), 640: (640, 768)}.items():
        parts = small_parts(sample_size=native // 4)
        folder = save_as_stable_diffusion(tmp_path / f"model {native}", parts)
        begin(Facts("cpu", False, False, str(folder)))
        model = runs.label_of(str(folder))
        assert runs.native_side(model) == native and runs.sides(model) == sides
        assert runs.settings_of(model, "fast", {"side": native}).image_area == native**2
        assert runs.settings_of(model, "fast", {"side": 256}).image_area == native**2
        runs._pipelines.pop(str(folder))
        assert runs.sides(model) == sides  # known also when another model has taken its place


def test_a_small_autoencoder_is_mentioned_where_it_decodes(begin, checkpoint, picture, tmp_path):
    begin(Facts("cpu", False, False, str(checkpoint)))
    picture.save(file := tmp_path / "picture.png")
    quick = {"num_segments": 3, "num_inference_steps": 10, "modulation_timestep": 101, "image_area": 64 * 64}

    def notes(model: str, name: str) -> tuple[str, ...]:
        return value_of(runs.find(file, model, "fast", quick, name=name)).segmentation.notes

    of_checkpoint = checkpoint.name, str(checkpoint)
    assert runs.SMALLER not in notes(*of_checkpoint)
    assert runs.SMALLER not in notes(runs.label_of(runs.MINIATURE), runs.MINIATURE)  # which has no other
    own = save_tiny_autoencoder(tmp_path / "tiny")
    runs._pipelines[str(checkpoint)] = emerdiff.load(checkpoint, device="cpu", dtype=torch.float32, autoencoder=own)
    assert runs.SMALLER in notes(*of_checkpoint)


def test_an_automatic_autoencoder_is_asked_for_with_every_checkpoint(begin, small, monkeypatch):
    asked = {}

    def noted(name, **options):
        asked[name] = options
        return small

    begin(CPU)
    monkeypatch.setattr(emerdiff, "load", noted)
    runs._pipelines.clear()
    for name in (MINIATURE, STABLE_DIFFUSION):
        runs.pipeline(name)
    assert asked == {MINIATURE: {"autoencoder": None}, STABLE_DIFFUSION: {"autoencoder": "automatic"}}


def test_gpu_time_is_asked_for_by_the_models_own_size(begin, installed):
    begin(ZEROGPU)
    own = gpu.seconds_of(SD, "exact", {})
    assert 20 < own <= gpu.seconds_of(SD, "exact", {"side": 256}) <= 300


def test_a_visitor_sees_the_model_first_and_may_choose_another(begin, installed, browser, monkeypatch):
    monkeypatch.setattr(runs, "own_preset", lambda _: "preview")  # for speed
    begin(GPU)
    with served(app.create_demo()) as address:
        page = browser.new_page(viewport={"width": 1320, "height": 1000})
        page.goto(address)
        model = page.get_by_label("Model")
        shows(page, f"{SD}, k = {examples()[0].k}", timeout=120_000)
        assert model.input_value().startswith(f"{SD} · knows photographs")
        assert page.locator("#strip [aria-checked=true]").inner_text() == examples()[0].title
        model.click()
        page.get_by_role("option", name=LIGHT).click()
        unfold(page)
        for chosen in ("384 px", "Preview"):  # both are there before, too, and are chosen when the model's answer comes
            expect(page.get_by_label(chosen)).to_be_checked()
        page.locator("#hint").get_by_text("is not installed").first.wait_for()
        page.close()
