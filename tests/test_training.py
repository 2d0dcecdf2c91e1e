"""A training that is cut off ends as if it had not been; images come from weights and a seed."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import blobs, quick

from fingerprint import run
from fingerprint.ledger import Damaged, digest_of_file
from fingerprint.models import checkpoint, resuming, sampling, training
from fingerprint.models.recipe import Recipe, chance, recipe_of
from fingerprint.models.sampling import TOGETHER, sample
from fingerprint.models.training import Trained, snapshot, train
from fingerprint.phases.train import steps_in, word_in

pytest.importorskip("diffusers", reason="the study extra is not installed")
pytest.importorskip("safetensors", reason="the study extra is not installed")

GENERATORS = ("ddpm", "dcgan")
N = 5
WEIGHTS = "weights.safetensors"


class CutOff(Exception):  # noqa: N818 - not a mistake of anyone
    pass


@pytest.fixture(scope="module", params=GENERATORS)
def whole(request, tmp_path_factory) -> tuple[Recipe, Path, Trained]:
    """Return a training that was never cut off."""
    recipe, folder = quick(request.param), tmp_path_factory.mktemp(request.param)
    return recipe, folder, train(blobs(N), recipe, folder)


def copied(whole: tuple[Recipe, Path, Trained], to: Path) -> Path:
    return Path(shutil.copytree(whole[1], to / "copy"))


def test_the_files_are_there_with_their_digests_and_the_checkpoint_is_gone(whole) -> None:
    recipe, folder, trained = whole
    assert digest_of_file(folder / WEIGHTS) == trained.weights
    assert {3: digest_of_file(snapshot(folder, 3))} == trained.snapshots
    names = {WEIGHTS, "step-000003.safetensors", "trained.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert [step for step, _ in trained.loss] == list(range(1, recipe.steps + 1))


def test_the_weights_say_what_they_are_of(whole) -> None:
    recipe, folder, trained = whole
    tensors, about = checkpoint.read(folder / WEIGHTS, trained.weights)
    assert recipe_of(about["recipe"]) == recipe
    assert about["n_images"] == N
    assert about["torch"] == str(torch.__version__)
    assert about["step"] == recipe.steps
    assert {t.dtype for t in tensors.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("often", "cuts"),
    # before there is a checkpoint, at one, at the snapshot, after it, before the files of the end
    [(True, [1, 3, 4, 6, 8]), (False, [2, 3, 5, 8])],
)
def test_a_training_cut_off_anywhere_ends_with_the_same_weights(
    often, cuts, whole, tmp_path, monkeypatch
) -> None:
    recipe, _, once = whole
    monkeypatch.setattr(training, "CHECKPOINT_S", 0.0 if often else 1e9)
    for cut in cuts:

        def watch(step: int, steps: int, loss: float, cut: int = cut) -> None:
            if step == cut:
                raise CutOff

        with pytest.raises(CutOff):
            train(blobs(N), recipe, tmp_path, watch)
    again = train(blobs(N), recipe, tmp_path)
    assert replace(again, seconds=once.seconds) == once


CHILD = """
import sys, time
from pathlib import Path
import torch
from generators import blobs, quick
from fingerprint.models import training

def slow(step, steps, loss):
    print(step, flush=True)
    time.sleep(0.02)

training.CHECKPOINT_S = 0.0
training.train(blobs({n}), quick("dcgan", steps=60), Path(sys.argv[1]), slow)
"""


def test_a_killed_process_loses_at_most_what_it_did_since_its_checkpoint(tmp_path) -> None:
    recipe = quick("dcgan", steps=60)
    once = train(blobs(N), recipe, tmp_path / "once")
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {path!r}" + CHILD.format(n=N)
    folder = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 20:
                child.send_signal(signal.SIGKILL)
                break
    assert child.wait() == -signal.SIGKILL
    after: list[int] = []
    again = train(blobs(N), recipe, folder, lambda step, steps, loss: after.append(step))
    assert again.weights == once.weights
    assert after[0] >= 20


def test_a_finished_training_is_not_done_again(whole, tmp_path, monkeypatch) -> None:
    recipe, _, trained = whole
    folder = copied(whole, tmp_path)

    def watch(step: int, steps: int, loss: float) -> None:
        raise CutOff

    (folder / "checkpoint.safetensors").touch()  # killed between the last two files
    assert train(blobs(N), recipe, folder, watch) == trained
    assert not (folder / "checkpoint.safetensors").exists()
    monkeypatch.setattr(resuming, "FORMAT", 2)
    resuming.finish(folder, trained, {})
    monkeypatch.setattr(resuming, "FORMAT", 1)
    with pytest.raises(ValueError, match=r"trained\.json must have format 1 or less, got 2"):
        train(blobs(N), recipe, folder)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (WEIGHTS, flipped),
        (WEIGHTS, Path.unlink),
        ("step-000003.safetensors", shortened),
        ("trained.json", shortened),
        ("trained.json", flipped),
    ],
)
def test_a_finished_training_with_a_damaged_file_is_done_again(
    name, harm: Callable[[Path], object], tmp_path, caplog
) -> None:
    recipe = quick("dcgan")
    trained = train(blobs(N), recipe, tmp_path)
    harm(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        again = train(blobs(N), recipe, tmp_path)
    assert again.weights == trained.weights == digest_of_file(tmp_path / WEIGHTS)
    assert f"{name} is damaged or gone: the training starts again" in caplog.text


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "step-000003.safetensors"])
@pytest.mark.parametrize("harm", [flipped, lambda p: p.write_bytes(b""), Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_training_starts_again(
    name, harm: Callable[[Path], object], tmp_path, caplog
) -> None:
    recipe = quick("dcgan")
    started: list[int] = []

    def watch(step: int, steps: int, loss: float) -> None:
        started.append(step)
        if step == 5 and len(started) == 5:
            raise CutOff

    with pytest.raises(CutOff):
        train(blobs(N), recipe, tmp_path, watch)
    harm(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        train(blobs(N), recipe, tmp_path, watch)
    assert started[5] == 1
    assert "the training starts again" in caplog.text or harm is Path.unlink


def cut_at_3(step: int, steps: int, loss: float) -> None:
    if step == 3:
        raise CutOff


@pytest.mark.parametrize("ends", [False, True])
def test_a_folder_of_another_training_is_refused_by_name(ends, tmp_path) -> None:
    recipe = quick("dcgan")
    if ends:
        train(blobs(N), recipe, tmp_path)
    else:
        with pytest.raises(CutOff):
            train(blobs(N), recipe, tmp_path, cut_at_3)
    with pytest.raises(ValueError, match=r"seed 1 there and 2 here, width 16 there and 32 here"):
        train(blobs(N), replace(recipe, seed=2, width=32), tmp_path)
    with pytest.raises(ValueError, match=r"other images \(5 there and 5 here\)"):
        train(blobs(N, seed=9), recipe, tmp_path)


def test_the_checkpoint_of_another_torch_is_used_with_a_warning(
    tmp_path, monkeypatch, caplog
) -> None:
    with pytest.raises(CutOff):
        train(blobs(N), quick("dcgan"), tmp_path, cut_at_3)
    monkeypatch.setattr(torch, "__version__", "9.9")
    train(blobs(N), quick("dcgan"), tmp_path)
    assert "goes on with 9.9: its weights will not be those" in caplog.text


def test_images_that_do_not_fit_are_refused(tmp_path) -> None:
    for images in (blobs(2, 64), blobs(2).astype(np.float32), blobs(0), blobs(2)[0]):
        with pytest.raises(ValueError, match=r"train: images must be uint8 \(n, 32, 32\)"):
            train(images, quick("dcgan"), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch) -> None:
    learner = training.LEARNERS["dcgan"]
    monkeypatch.setitem(
        training.LEARNERS,
        "dcgan",
        lambda *a: replace(learner(*a), step=lambda images, k: torch.tensor(float("nan"))),
    )
    with pytest.raises(ValueError, match="the loss must be finite, got nan at step 1"):
        train(blobs(2), quick("dcgan"), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_number_of_threads_is_put_back_and_changes_no_weight(whole, tmp_path) -> None:
    recipe, _, trained = whole
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(4)
        drawn = torch.rand(3)
        torch.manual_seed(4)
        assert train(blobs(N), recipe, tmp_path).weights == trained.weights
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(3), drawn), "torch's own generator was used"
    finally:
        torch.set_num_threads(before)


# -- order, mean -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch"), [(6, 16), (7, 3), (40, 8), (1, 4)])
def test_every_image_is_seen_equally_often_give_or_take_once(n, batch) -> None:
    recipe = quick("ddpm", batch=batch)
    orders = [training._order(n, recipe, k) for k in range(11)]
    counts = np.bincount(np.concatenate(orders), minlength=n)
    assert counts.sum() == 11 * batch
    assert np.ptp(counts) <= 1
    assert n == 1 or any((a != b).any() for a, b in zip(orders, orders[1:], strict=False))


def test_chance_is_another_for_each_seed_use_and_number() -> None:
    drawn = {
        int(chance(seed, use, number).integers(2**62))
        for seed in (0, 1, 2**40)
        for use in ("weights", "order", "step", "pool")
        for number in (0, 1, 2**33)
    }
    assert len(drawn) == 36


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_mean_of_the_weights_follows_its_formula(generator, tmp_path) -> None:
    steps = 4
    kept: list[dict[str, torch.Tensor]] = []
    learner = training.LEARNERS[generator]

    def watched(recipe: Recipe, device: torch.device):
        made = learner(recipe, device)
        kept.append({k: v.clone() for k, v in made.kept.state_dict().items()})

        def step(images: torch.Tensor, k: int) -> torch.Tensor:
            loss = made.step(images, k)
            kept.append({k: v.clone() for k, v in made.kept.state_dict().items()})
            return loss

        return replace(made, step=step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.LEARNERS, generator, watched)
        recipe = quick(generator, steps=steps, ema=0.25, snapshots=())
        trained = train(blobs(N), recipe, tmp_path)
    tensors, _ = checkpoint.read(tmp_path / WEIGHTS, trained.weights)
    for name in (name for name, value in tensors.items() if value.is_floating_point()):
        want = kept[0][name].double()
        for k, state in enumerate(kept[1:]):
            decay = min(0.25, (1 + k) / (10 + k))
            want = decay * want + (1 - decay) * state[name].double()
        torch.testing.assert_close(tensors[name].double(), want, rtol=0, atol=1e-6)


# -- recipe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generator", "vae"), ("px", 24), ("px", 36), ("px", 264), ("steps", 0), ("batch", 0),
        ("learning_rate", 0.0), ("width", 12), ("width", 0), ("ema", 1.0), ("ema", -0.1),
        ("seed", -1), ("snapshots", (3, 3)), ("snapshots", (0,)), ("snapshots", (9,)),
        ("sample_steps", 0), ("sample_steps", 1001),
    ],
)  # fmt: skip
def test_a_recipe_that_breaks_a_rule_is_refused(field, value) -> None:
    with pytest.raises(ValueError, match=f"Recipe: {field} must be"):
        replace(quick("ddpm"), **{field: value})


def test_a_dcgan_has_a_power_of_two() -> None:
    assert quick("ddpm", px=40).px == 40
    with pytest.raises(ValueError, match="Recipe: px"):
        quick("dcgan", px=40)


def test_a_recipe_survives_json() -> None:
    recipe = quick("ddpm", snapshots=(2, 5))
    assert recipe_of(json.loads(json.dumps(asdict(recipe)))) == recipe
    with pytest.raises(ValueError, match="fields must be those of a Recipe"):
        recipe_of(asdict(recipe) | {"colour": 1})


# -- files -----------------------------------------------------------------------------------------


def test_every_flipped_byte_of_a_file_is_found(tmp_path) -> None:
    path = tmp_path / "some.safetensors"
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "none": torch.zeros(0)}
    sha256 = checkpoint.write(path, tensors, {"x": 1})
    back, about = checkpoint.read(path, sha256)
    assert about == {"x": 1}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises((Damaged, ValueError)):
            checkpoint.read(path, sha256)
    assert checkpoint.write(path, dict(reversed(tensors.items())), {"x": 1}) == sha256


def test_a_newer_file_asks_for_a_newer_version(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.write(tmp_path / "new", {"a": torch.zeros(1)}, {})
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(ValueError, match="install a newer version"):
        checkpoint.read(tmp_path / "new")


# -- sampling --------------------------------------------------------------------------------------


def test_a_pool_is_the_same_however_it_is_cut(whole) -> None:
    _, folder, trained = whole
    n = TOGETHER + 3
    pool = sample(folder / WEIGHTS, trained.weights, 0, n, seed=3)
    assert pool.shape == (n, 32, 32)
    assert pool.dtype == np.uint8
    for first, count in ((5, 3), (TOGETHER - 1, 2), (n - 1, 1)):
        part = sample(folder / WEIGHTS, trained.weights, first, count, seed=3)
        assert np.array_equal(part, pool[first : first + count])


def test_images_differ_with_number_seed_and_weights(whole) -> None:
    _, folder, trained = whole
    pool = sample(folder / WEIGHTS, trained.weights, 0, 4, seed=3)
    others = [
        sample(folder / WEIGHTS, trained.weights, 0, 4, seed=4),
        sample(folder / WEIGHTS, trained.weights, 100, 4, seed=3),
        sample(snapshot(folder, 3), trained.snapshots[3], 0, 4, seed=3),
    ]
    assert len(np.unique(pool.reshape(4, -1), axis=0)) == 4
    assert all((other != pool).any() for other in others)


def test_no_training_pixel_is_needed_to_sample(whole, tmp_path, monkeypatch) -> None:
    _, folder, trained = whole
    alone = tmp_path / "elsewhere"
    shutil.copy(folder / WEIGHTS, alone)
    opened: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path.name), read(path))[1])
    part = sample(alone, trained.weights, 0, 2, seed=3)
    assert opened == ["elsewhere"]
    assert np.array_equal(part, sample(folder / WEIGHTS, trained.weights, 0, 2, seed=3))


def test_damaged_and_other_weights_are_refused(whole, tmp_path) -> None:
    folder = copied(whole, tmp_path)
    with pytest.raises(ValueError, match="weights.safetensors must have sha256 0000"):
        sample(folder / WEIGHTS, "0" * 64, 0, 1, seed=3)
    flipped(folder / WEIGHTS)
    with pytest.raises(Damaged, match=r"weights\.safetensors"):
        sample(folder / WEIGHTS, whole[2].weights, 0, 1, seed=3)
    with pytest.raises(FileNotFoundError):
        sample(folder / "none", whole[2].weights, 0, 1, seed=3)


@pytest.mark.parametrize("wrong", [{"first": -1}, {"count": 0}, {"seed": -1}])
def test_a_part_of_a_pool_that_cannot_be_is_refused(wrong, tmp_path) -> None:
    with pytest.raises(ValueError, match=f"sample: {next(iter(wrong))} must be"):
        sample(tmp_path, "", **({"first": 0, "count": 1, "seed": 1} | wrong))


def test_importing_the_generators_loads_neither_diffusers_nor_safetensors() -> None:
    names = [module.__name__ for module in (training, sampling, resuming)]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"diffusers", "safetensors", "huggingface_hub"} & set(done.stdout.split())


@pytest.mark.parametrize("generator", GENERATORS)
def test_without_the_extra_the_command_that_installs_it_is_named(
    generator, tmp_path, monkeypatch
) -> None:
    for name in ("diffusers", "safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fingerprint\[study\]'"):
        train(blobs(2), quick(generator), tmp_path)


def test_steps_of_several_trainings_are_watched_while_they_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run, "EVERY_S", 0.001)
    folders = [tmp_path / name for name in ("one", "two", "not begun")]
    for folder in folders[:2]:
        folder.mkdir()
        word_in(folder)(3, 10, 0.5)
    said: list[tuple[str, int, int]] = []
    looked = threading.Event()

    def watch(*word: object) -> None:
        said.append(word)
        if len(said) > 1:
            looked.set()

    with run.steps_shown(lambda: (steps_in(folders), 30), watch):
        assert looked.wait(30)
    assert said[:2] == [("steps", 0, 30), ("steps", 6, 30)]
