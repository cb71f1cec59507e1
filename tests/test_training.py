"""What the miniature's training stands on: its optimizer, runs that go on, photographs, and a measure to train by."""

import io
import logging
import tarfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from transformers import CLIPTokenizer

from emerdiff.miniature import model, probe, train
from emerdiff.miniature.photographs import Entry, Photograph, Photographs, find_photographs
from emerdiff.miniature.pictures import Store, Stream
from emerdiff.miniature.run import (
    LayersMuon,
    Run,
    annealed,
    as_matrix,
    inner_weights,
    mixed_precision,
    optimize,
    set_rate,
    tokens,
)
from emerdiff.miniature.scenes import draw_scene
from emerdiff.miniature.train import draw_timesteps, keep_all, load_tokenizer, main
from emerdiff.pipeline import EmerDiffPipeline
from emerdiff.studies import scoring
from emerdiff.studies.datasets import VOID, open_dataset
from emerdiff.studies.scoring import Table


@pytest.fixture
def layer() -> torch.nn.Conv2d:
    torch.manual_seed(0)
    return torch.nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last)


@pytest.fixture(params=[True, False], ids=["bfloat16 units", "none"])
def has_bfloat16(request, monkeypatch) -> bool:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": request.param})
    return request.param


def test_a_cpu_computes_in_bfloat16_only_where_it_has_units_for_it(layer, has_bfloat16):
    with mixed_precision(torch.device("cpu")):
        assert layer(torch.ones(1, 6, 4, 4)).dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)


def test_a_step_on_a_convolution_is_muons_step_on_its_matrix(layer, has_bfloat16):
    matrix = torch.nn.Parameter(as_matrix(layer.weight.detach()).clone())
    other, options = torch.nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last), dict(lr=0.01, weight_decay=0.01)
    ours = LayersMuon([layer.weight, other.weight], **options)  # of one shape: they are stepped together
    theirs = torch.optim.Muon([matrix], **options, adjust_lr_fn="match_rms_adamw")
    before = layer.weight.detach().clone()
    for seed in range(3):
        torch.manual_seed(seed)
        layer.weight.grad = torch.randn(8, 6, 3, 3)  # channels first, as a backward pass may leave it
        other.weight.grad = 5 * torch.randn(8, 6, 3, 3)
        matrix.grad = layer.weight.grad.permute(0, 2, 3, 1).reshape(8, -1)
        ours.step()
        theirs.step()
    rounding = 1e-4 if has_bfloat16 else 4e-4  # theirs always iterates in bfloat16
    assert torch.allclose(as_matrix(layer.weight), matrix, atol=rounding)
    assert not torch.allclose(layer.weight, before, atol=1e-3)


def test_the_update_of_a_layer_is_orthogonal(layer):
    optimizer = LayersMuon([layer.weight], weight_decay=0, lr=1.0)
    before = as_matrix(layer.weight.detach()).clone()
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    singular = torch.linalg.svdvals(as_matrix(layer.weight.detach()) - before) / (0.2 * 54**0.5)
    assert singular.min() > 0.6 and singular.max() < 1.3  # what the five iterations leave: about 1


@pytest.fixture(scope="module", autouse=True)
def captions_of_few_scenes():
    """A tokenizer learns from as many captions as ever, but of fifty scenes that come again: drawing takes its time."""
    drawn = cache(draw_scene)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "draw_scene", lambda seed, size: drawn(seed % 50, size))
        yield


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> CLIPTokenizer:
    return load_tokenizer(tmp_path_factory.mktemp("run"), None, told("a photo of a zebra"))


def told(*captions: str) -> Photographs:
    """Fifty photographs of which only the captions matter."""
    return Photographs(tuple(Photograph(Entry("a.png", Path("a.png")), (caption,)) for caption in captions * 50), 0.5)


def new_run(out: Path, tokenizer: CLIPTokenizer) -> Run:
    return Run(out, torch.device("cpu"), 10, tokenizer, seed=0)


def test_a_run_keeps_the_tokenizer_that_it_learned(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert tokenizer.model_max_length == 77
    for of_scenes, of_photographs in [("a", "photo"), ("house", "zebra")]:  # words, not letters, of both worlds
        assert tokenizer.tokenize(f"{of_scenes} {of_photographs}") == [f"{of_scenes}</w>", f"{of_photographs}</w>"]
    assert load_tokenizer(tmp_path, None, Photographs()).get_vocab() == tokenizer.get_vocab()


def test_weights_that_are_begun_with_keep_their_words_and_get_those_of_photographs(tmp_path):
    begun = model.new_tokenizer(["a house with a red roof"] * 50, 600)
    begun.save_pretrained(tmp_path / "begun" / "tokenizer")
    assert load_tokenizer(tmp_path / "run", tmp_path / "begun", Photographs()).get_vocab() == begun.get_vocab()
    tokenizer = load_tokenizer(tmp_path / "run", tmp_path / "begun", told("a red zebra (9)"))
    torch.manual_seed(0)
    known, encoder = model.new_text_encoder(begun), model.new_text_encoder(tokenizer)
    rows, known_rows = encoder.get_input_embeddings().weight, known.get_input_embeddings().weight
    first = rows.detach().clone()
    model.start_text_encoder(encoder, tokenizer, known, begun)

    def text(encoder, tokenizer, caption: str) -> torch.Tensor:
        tokens = tokenizer([caption], padding="max_length", return_tensors="pt").input_ids
        return encoder(tokens).last_hidden_state

    assert tokenizer.tokenize("red zebra") == ["red</w>", "zebra</w>"] and len(begun.tokenize("zebra")) == 5
    with torch.no_grad():
        for caption in ("", "a red house"):
            assert torch.equal(text(encoder, tokenizer, caption), text(known, begun, caption))
        zebra = [known_rows[begun.get_vocab()[letter]] for letter in ("z", "e", "b", "r", "a</w>")]
        assert torch.allclose(rows[tokenizer.get_vocab()["zebra</w>"]], torch.stack(zebra).mean(0))
        unheard = tokenizer.get_vocab()["9</w>"]  # no 9 ever ended a word
        assert torch.equal(rows[unheard], first[unheard])


def test_a_resumed_run_goes_on_as_the_first_would_have(tmp_path, tokenizer):
    def train_a_step(run: Run, seed: int) -> None:
        torch.manual_seed(seed)
        x, t = torch.randn(2, 4, 16, 16), torch.tensor([900, 100])
        text = run.text_encoder(tokens(run.tokenizer, ["a house", "a tree"])).last_hidden_state
        loss = (run.unet(x, t, text).sample - x).square().mean()
        set_rate([run.muon, run.adamw], 1e-3)
        optimize([run.muon, run.adamw], run.denoiser, loss)
        run.average.step(run.denoiser.parameters())

    first = new_run(tmp_path, tokenizer)
    weights, others = inner_weights(first.denoiser)
    assert len(weights) + len(others) == len(list(first.denoiser.parameters()))
    train_a_step(first, 1)
    first.step, first.encoded = 7, True
    first.vae.register_to_config(scaling_factor=0.5)
    first.save(next_seed=1_000_123)
    second = new_run(tmp_path, tokenizer)
    second.resume(tmp_path / "checkpoint.pt")
    assert (second.step, second.encoded, second.vae.config.scaling_factor) == (7, True, 0.5)
    assert second.share == pytest.approx(first.share, abs=0.05)
    for run in (first, second):
        train_a_step(run, 2)
    for one, other in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(first.average.shadow_params, second.average.shadow_params, strict=True):
        assert torch.equal(one, other)


def test_the_exported_pipeline_has_the_averaged_weights_and_loads(tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer)
    trained = run.unet.conv_out.bias.detach().clone()
    for shadow in run.average.shadow_params:
        shadow.add_(1)
    run.export()
    assert torch.equal(run.unet.conv_out.bias, trained)  # training goes on from its own weights
    loaded = EmerDiffPipeline.from_pretrained(tmp_path / "pipeline", dtype=torch.float32)
    assert torch.allclose(loaded.unet.conv_out.bias, trained + 1, atol=1e-3)


def test_a_run_goes_on_from_a_finished_pipeline_whatever_the_width_of_its_decoder(tmp_path, tokenizer):
    first = new_run(tmp_path, tokenizer)
    first.vae = AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(40,) * 4, scaling_factor=0.7
    )
    first.export()
    begun = EmerDiffPipeline.from_pretrained(tmp_path / "pipeline", dtype=torch.float32)
    second = Run(tmp_path, torch.device("cpu"), 10, tokenizer, vae=begun.vae, seed=1)
    second.start_from(begun)
    assert second.encoded and second.vae.config.scaling_factor == 0.7
    for part in ("unet", "text_encoder", "vae"):
        for one, other in zip(getattr(first, part).parameters(), getattr(second, part).parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-3)
    for weight, shadow in zip(second.denoiser.parameters(), second.average.shadow_params, strict=True):
        assert torch.equal(weight, shadow)  # averaged from here on, not from random weights
    for shadow in second.average.shadow_params:
        shadow.add_(1)
    second.export()
    loaded = EmerDiffPipeline.from_pretrained(tmp_path / "pipeline", dtype=torch.float32)
    for part in ("unet", "text_encoder"):  # half is what it has become
        for one, other in zip(getattr(loaded, part).parameters(), getattr(begun, part).parameters(), strict=True):
            assert torch.allclose(one, other + 0.5, atol=2e-3)


@pytest.mark.parametrize(("layout", "noisy"), [(True, 0.75), (False, 0.5)])
def test_timesteps_are_all_or_half_of_them_those_of_layout(layout, noisy):
    torch.manual_seed(0)
    t = draw_timesteps(4000, torch.device("cpu"), layout=layout)
    assert t.min() >= 0 and t.max() <= 999
    assert (t >= 500).float().mean() == pytest.approx(noisy, abs=0.03)


def test_captions_are_dropped_for_the_empty_prompt_and_the_others_stay_in_place(tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer)
    captions = [f"{colour} water" for colour in ("red", "blue", "green", "black", "white")] * 8
    with torch.no_grad():
        prompts = run.prompts(tokens(tokenizer, captions))
    same, blank = ((prompts == tokens(tokenizer, of)).all(1) for of in (captions, [""]))
    assert torch.equal(same, ~blank) and 3 < blank.sum() < 25


def test_the_learning_rate_warms_up_then_falls():
    rates = [annealed(share, 0.17, 1) for share in (0.17, 0.19, 0.5, 0.8, 1.0, 1.5)]
    assert rates[0] < 0.05 < rates[3] < rates[2] < rates[1] <= 1
    assert rates[4] == rates[5] == pytest.approx(0.01)


def test_what_is_kept_is_written_as_it_comes_and_does_not_count_as_training(tmp_path, tokenizer):
    run, file = new_run(tmp_path, tokenizer), tmp_path / "latents.pt"
    shapes = [((4, side, side), torch.float16) for side in (2, 4, 8)]
    kept = Store(5, run.device, *shapes, ((77,), torch.int32))
    stream = Stream(1_000_000, 64, Photographs(), workers=1, ahead=8)
    before = run.share
    keep_all(run, stream, kept, file)
    stream.close()
    again = Store(5, run.device, *shapes, ((77,), torch.int32))
    again.load(file)
    assert len(again) == 5 and all(map(torch.equal, kept.tensors, again.tensors))
    assert kept.tensors[2].abs().amax((1, 2, 3)).min() > 0 and len(kept.tensors[3].unique(dim=0)) > 1
    assert run.share == pytest.approx(before, abs=1e-3)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["next_seed"] >= 1_000_005


def test_minutes_on_a_processor_are_those_in_which_it_works(tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer)
    before = run.share
    time.sleep(1)
    waited, began = run.share - before, time.process_time()
    while time.process_time() - began < 0.5:
        pass
    worked = run.share - before - waited
    assert waited < 0.2 * worked == pytest.approx(0.1 / (600 * torch.get_num_threads()), rel=0.5)


# ---------------------------------------------------------------- photographs

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}


def encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def wall(colour: str, kind: str, size: tuple[int, int] = (90, 70)) -> bytes:
    """A picture of nearly one colour."""
    tones = np.random.default_rng(0).integers(-20, 20, (size[1], size[0], 1))
    return encoded(Image.fromarray((COLOURS[colour] + tones).astype(np.uint8)), kind)


FILES = {
    "a.jpg": wall("red", "JPEG"),
    "a.txt": b"a red wall\n\n a wall of red \n",
    "below/b.c.PNG": wall("green", "PNG"),
    "below/b.c.txt": b"a green wall",
    "c.webp": wall("blue", "WEBP", (64, 200)),
    "c.txt": b"a blue wall",
    "alone.jpg": wall("red", "JPEG"),
    "wordless.jpg": wall("red", "JPEG"),
    "wordless.txt": b"\n",
    "captions.txt": b"a caption without a picture",
    "cut.jpg": wall("red", "JPEG")[:300],
    "cut.txt": b"a file that was cut off",
    "small.png": wall("red", "PNG", (30, 30)),
    "small.txt": b"too small",
    "animation.webp": wall("red", "GIF"),  # another format than its name says: not opened
    "animation.txt": b"a picture in another format",
    "notes.json": b"{}",
}


def write_tar(file: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(params=["folder", "tar", "folder with a tar"])
def files(request, tmp_path) -> Path:
    match request.param:
        case "folder":
            return write_folder(tmp_path / "pictures", FILES)
        case "tar":
            return write_tar(tmp_path / "pictures.tar", FILES)
        case _:
            return write_tar(tmp_path / "0.tar", FILES).parent


def test_pairs_are_found_in_folders_and_tars_and_what_is_skipped_is_counted(files, caplog):
    with caplog.at_level(logging.INFO):
        found = find_photographs([files])
    captions = {Path(photograph.picture.name).name: photograph.captions for photograph in found}
    assert captions == {
        "a.jpg": ("a red wall", "a wall of red"),
        "b.c.PNG": ("a green wall",),
        "c.webp": ("a blue wall",),
    }
    *reasons, counts = caplog.messages
    assert counts == "3 photographs; skipped: 3 that cannot be read, 2 without a caption, 1 captions without a picture"
    assert sorted(Path(reason.split(" is skipped: ")[0]).name for reason in reasons) == [
        "animation.webp",
        "cut.jpg",
        "small.png",
    ]


def test_pictures_that_take_turns_bring_their_own_captions_and_scenes_are_drawn_between(tmp_path):
    photographs = Photographs(find_photographs([write_tar(tmp_path / "a.tar", FILES)]), share=0.75)
    stream = Stream(1_000_000, 48, photographs, workers=1)
    taken = stream.take(16, at_least=16)
    stream.close()
    told = Counter()
    for picture, caption in taken:
        assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
        if caption in ("a red wall", "a wall of red", "a green wall", "a blue wall"):
            colour = next(colour for colour in COLOURS if colour in caption)
            assert np.allclose(picture.mean((0, 1)), COLOURS[colour], atol=8)
            told[colour] += 1
    assert told == {"red": 4, "green": 4, "blue": 4}


def test_a_share_of_any_seeds_in_a_row_are_photographs_and_all_come_before_one_comes_again():
    photographs = Photographs(tuple("abcdefg"), share=0.4)  # `of` does not look into them
    turns = [photographs.of(seed) for seed in range(1_050_000, 1_050_350)]
    assert all(sum(turn is not None for turn in turns[i : i + 50]) == 20 for i in range(300))
    shown = [turn for turn in turns if turn]
    rounds = {tuple(shown[i : i + 7]) for i in range(0, 140, 7)}
    assert len(rounds) > 1 and all(sorted(shown) == list("abcdefg") for shown in rounds)
    assert Photographs().of(3) is None


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (80, 80), (64, 90)])
def test_a_crop_is_a_square_nearly_as_long_as_the_shorter_side(tmp_path, size):
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    gradients = np.stack([across, down, 0 * across], -1).astype(np.uint8)
    write_folder(tmp_path, {"a.png": encoded(Image.fromarray(gradients), "PNG"), "a.txt": b"one\ntwo"})
    (photograph,) = find_photographs([tmp_path])
    drawn = [photograph.draw(seed, 64) for seed in range(12)]
    assert {picture.shape for picture, _ in drawn} == {(64, 64, 3)}
    for picture, _ in drawn:
        shown = [np.ptp(picture[..., axis].astype(int)) / 255 for axis in (0, 1)]  # of its width and height
        width = np.array(shown) * size / min(size)
        assert 0.75 < width.min() <= width.max() < 1.05 and np.ptp(width) < 0.06
    middles = [picture.mean((0, 1))[0 if size[0] > size[1] else 1] for picture, _ in drawn]
    assert size == (80, 80) or np.ptp(middles) > 10  # not always the same square
    assert {bool(picture[0, 0, 0] > picture[0, -1, 0]) for picture, _ in drawn} == {False, True}  # flipped or not
    assert {caption for _, caption in drawn} == {"one", "two"}
    again, caption = photograph.draw(5, 64)
    assert np.array_equal(again, drawn[5][0]) and caption == drawn[5][1]


def test_photographs_that_are_not_there_are_an_error_that_says_so(tmp_path, capsys):
    empty = write_folder(tmp_path / "empty", {"a.txt": b"alone", "b.png": wall("red", "PNG")})
    with pytest.raises(ValueError, match=r"empty: no readable picture \(\.jpg, .*\) has a \.txt of the same name"):
        find_photographs([empty])
    for path in (tmp_path / "missing", write_tar(tmp_path / "a.tar.gz", FILES, "w:gz"), empty / "b.png"):
        with pytest.raises(ValueError, match=f"{path.name} is neither a folder nor a tar"):
            find_photographs([path])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--photographs", "missing"], "missing is neither a folder nor a tar"),
        (["--photographs-share", "0"], "--photographs-share must be above 0"),
    ],
)
def test_the_command_refuses_photographs_that_it_cannot_train_on(monkeypatch, capsys, tmp_path, options, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train", *options])
    with pytest.raises(SystemExit):
        main()
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


# ---------------------------------------------------------------- a measure to train by


def some_cells(knowledge: float) -> list[Table]:
    """Twelve pictures of 6 x 6 cells of 4 x 4 pixels, of three classes that features know, or know not, from noise."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(12):
        classes = np.eye(3, dtype=np.int64)[rng.integers(0, 3, 36)]
        features = np.pad(knowledge * classes, ((0, 0), (0, 5))) + rng.normal(0, 0.1, (36, 8))
        pictures.append(Table(16 * classes, features.astype(np.float32), np.empty((0, 4), np.int64)))
    return pictures


def test_the_probe_scores_features_by_the_classes_that_they_know():
    known, unknown = some_cells(2.0), some_cells(0.0)
    assert scoring.miou(probe.classify(known)) == 1 > 0.5 > scoring.miou(probe.classify(unknown))
    for cells, good in ((known, True), (unknown, False)):
        segments = [probe.segment(picture, 3) for picture in cells]
        assert all(
            (of.counts.sum(0) == picture.counts.sum(0)).all() for of, picture in zip(segments, cells, strict=True)
        )
        score = scoring.miou(scoring.hungarian(segments))
        assert score == 1 if good else score < 0.5


def test_the_probe_counts_the_pixels_of_each_cell_but_void(small, tmp_path):
    labels = np.repeat(np.arange(2, dtype=np.uint8), 64)[None].repeat(128, 0)  # left half 0, right half 1
    labels[:32] = VOID
    for name in "abcdef":
        noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
        write_folder(tmp_path, {f"images/{name}.png": encoded(Image.fromarray(noise), "PNG")})
        write_folder(tmp_path, {f"labels/{name}.png": encoded(Image.fromarray(labels), "PNG")})
    for picture in probe.read(small, open_dataset(str(tmp_path), 64), small.settings()):
        cells = picture.counts.reshape(16, 16, -1)
        assert not cells[:4].any() and (cells[4:, :8, 0] == 64).all() and (cells[4:, 8:, 1] == 64).all()
        assert cells.sum() == (labels != VOID).sum() and len(picture.embeddings) == 256
    scores = probe.probe(small, open_dataset(str(tmp_path), 64), small.settings(num_segments=4))
    assert scores.hungarian <= scores.majority <= scores.ceiling == 1 and 0 < scores.linear <= 1


def test_the_probes_table_has_a_row_for_each_dataset(checkpoint, monkeypatch, capsys):
    sources = ["tree:500000..500004", "boat:500000..500005"]
    settings = ["--num-segments", "4", "--feature-timestep", "50", "--feature-draws", "1"]
    monkeypatch.setattr("sys.argv", ["probe", "--model", str(checkpoint), *settings, *sources])
    probe.main()
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[-1].strip() == "ceiling"
    assert [row.split()[:2] for row in rows] == [[sources[0], "5"], [sources[1], "6"]]
    for source, told in (("nothing", "'nothing' is neither scenes"), ("tree:1..3", "at least 5 pictures, not 3")):
        monkeypatch.setattr("sys.argv", ["probe", "--model", str(checkpoint), source])
        with pytest.raises(SystemExit):
            probe.main()
        assert told in capsys.readouterr().err
