"""The programs of bench/: each tells what it takes, and the chain down to a worker holds."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import common
import numpy as np
import pytest
import reference
import soundfile
from decoding import forced, usable
from reference import cost_of, random_folder, recipe_of

import transduce
from transduce.kernels import available
from transduce.model import sampled
from transduce.search import decode_batch

BENCH = Path(reference.__file__).parent
PROGRAMS = sorted(
    path.name for path in BENCH.glob("*.py") if '"__main__":\n    main()' in path.read_text()
)
TINY = "model.embedding=8 model.encoder.size=8 model.decoder.size=8".split()
PAIRS = [("a cat sat", "eine katze"), ("the dog ran on", "der hund lief"), ("a dog", "ein hund")]


def run(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str | Path) -> None:
    """A program, in this process: it would take seconds to import torch in another."""
    monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
    runpy.run_path(str(BENCH / program), run_name="__main__")


def corpus(folder: Path) -> list[str]:
    """Options that make the reference recipe one for few pairs."""
    for side, name in enumerate(("source", "target")):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in PAIRS * 20))
    files = f"{{source: {folder / 'source'}, target: {folder / 'target'}}}"
    return [f"data.train={files}", f"data.valid={files}", "source.tokenizer.size=40"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_what_it_takes(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, program, "--help")
    assert end.value.code == 0
    assert f"usage: {program}" in capsys.readouterr().out


def test_there_are_programs() -> None:
    expected = "train_speed decode_speed latency memory scaling peers speech".split()
    assert {f"{name}.py" for name in expected} <= set(PROGRAMS)


def test_decoding_speed_of_a_model_folder(
    untrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(common, "probe", lambda threads, dtype="fp32": 100.0)
    (tmp_path / "lines").write_text("cat\ntack\n")
    told = ["--lines", "4", "--runs", "2", "--beams", "1,2", "--precisions", "fp32", "--refill"]
    run(
        monkeypatch, "decode_speed.py", untrained, tmp_path / "lines", *told,
        "--json", tmp_path / "found.json",
    )  # fmt: skip
    assert "sentences/s" in capsys.readouterr().out
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {tuple(row["label"][2:]) for row in rows} == {
        (beam, how) for beam in "12" for how in ("batches of 64", "bulk", "bulk, refilled")
    }
    assert all(len(row["rounds"]) == 2 and row["median"] > 0 and row["limit"] > 0 for row in rows)


SMALL = (
    "model.embedding=8 model.encoder.layers=2 model.encoder.size=16 model.decoder.size=8 "
    "model.subsampling.channels=4 source.bins=20 source.augment.frequency_width=2"
).split()


def test_speech_is_measured_whole_and_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "probe", lambda threads, dtype="fp32": 100.0)
    told = "--recordings 2 --precisions fp32 --runs 1 --beam 1 --json".split()
    run(monkeypatch, "speech.py", "--random", *told, tmp_path / "a.json", "--set", *SMALL)
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["label"][0] for row in rows] == [
        "features", "one by one", "together", "stream, computing",
    ]  # fmt: skip
    assert all(row["median"] > 0 and row["left_out"] is None for row in rows)
    assert "x real time" in capsys.readouterr().out


def test_a_first_word_ends_where_the_sound_is_faintest_before_the_second() -> None:
    from speech_ends import end_of, onset

    wave = np.random.default_rng(1).standard_normal(32_000).astype(np.float32)
    level = np.full(32_000, 0.001, dtype=np.float32)
    level[8_000:16_000], level[20_000:28_000] = 0.3, 1.0  # words 0.5-1.0 s and 1.25-1.75 s
    wave *= level
    assert onset(wave) == pytest.approx(0.5)
    # The first spike may stand before there is any sound, the second at the end of its word.
    for first, following in ((0.02, 1.3), (0.9, 1.7), (0.55, 1.2)):
        assert end_of(wave, first, following) == pytest.approx(1.0, abs=0.01)
    assert end_of(wave, 0.02, None) == pytest.approx(1.75, abs=0.01)
    assert end_of(wave, 0.02, 0.3) is None  # the second word before there is any sound


def test_first_words_end_by_the_alignment_of_a_model(tmp_path: Path) -> None:
    from speech import ends_of, noise
    from speech_ends import onset
    from speech_folder import random_folder as random_speech

    from transduce.data.audio.files import load
    from transduce.data.formats import Example

    folder = random_speech(tmp_path / "model", SMALL)
    (row, _) = noise(tmp_path / "noise", 2)
    seconds, start = soundfile.info(row["audio"]).duration, onset(load(row["audio"], 16_000)[0])
    # A word that needs almost every position ends late, whatever the weights; what has too many
    # letters for the sound, or none, has no end, nor has what is over before there is a sound.
    room = round(seconds / 0.04) - 4
    long = ("AB" * room)[:room]
    texts = (long, f"{long[:-3]} A", f"A {long[:-3]}", long * 3, "")
    found = ends_of(folder, [Example(row["audio"], text, "", 1) for text in texts])
    assert found[0] is not None and seconds - 0.6 < found[0] <= seconds
    assert found[1] is not None and start < found[1] <= found[0]
    assert found[2:] == [None, None, None]


def test_a_word_that_only_the_final_line_has_right_has_no_delay() -> None:
    from worker_speech import fate_of

    from transduce.recognition.live import Line

    def fate(*texts: str) -> tuple[str, float | None, bool]:
        """Texts of lines a second apart; the final one ends in a full stop."""
        lines = [Line(text.rstrip("."), 0, 0, text.endswith(".")) for text in texts]
        return fate_of("YES", [(float(n), line) for n, line in enumerate(lines)])

    assert fate("NO", "YES", "YES OR", "YES OR NO.") == ("partial", 1.0, True)
    assert fate("YES", "NO.") == ("partial", 0.0, False)
    assert fate("NO", "YES.") == ("final", None, True)
    assert fate("NO", "NO.", "YES", "YES.") == ("never", None, False)
    assert fate("YES", ".", "NO", "YES.") == ("final", None, True)  # taken back
    assert fate("YES", ".") == ("never", None, False)
    assert fate(".") == fate() == ("nothing", None, False)


def test_a_first_word_is_late_by_waiting_and_by_computing() -> None:
    from worker_speech import Clock

    wave, times = list(range(10)), []
    clock = Clock(wave, 2, 1.0)  # two samples a second, in chunks of a second
    for chunk in clock.chunks():
        assert len(chunk) == 2
        times.append(clock.now())
        clock._at += 1.5 if len(times) == 1 else 0.0  # thinks longer than the next one lasts
    assert np.allclose(times, [1.0, 2.5, 3.0, 4.0, 5.0], atol=0.3)
    assert times == sorted(times)


def test_training_speed_runs_the_real_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "probe", lambda threads, dtype="fp32": 100.0)
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    data = corpus(tmp_path)
    told = "--precisions fp32,bf16+exact --threads 1 --seconds 0.2 --runs 2 --warm 0 --json".split()
    run(monkeypatch, "train_speed.py", *TINY, *data, *told, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    epoch, (row, exact) = found["machine"]["epoch"], found["rows"]
    assert epoch["sentences"] == 60
    assert 0 < epoch["target"] <= epoch["padded_target"]
    assert len(row["rounds"]) == 2 and row["median"] > 0 and exact["median"] > 0
    assert "padding" in capsys.readouterr().out


@pytest.mark.skipif(not available(), reason="no kernels on this machine")
def test_noise_of_a_sampled_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampled, "LEAST", 1)
    monkeypatch.setattr(common, "probe", lambda threads, dtype="fp32": 100.0)
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of([*TINY, *corpus(tmp_path), "training.batch_tokens=100"])
    folder = random_folder(tmp_path / "model", recipe)
    run(monkeypatch, "gradient_noise.py", folder, "--batches", "2")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert [row[0] for row in rows] == ["begun", "trained"]
    assert all(0 < float(row[-2].strip("%")) < 60 for row in rows)


def test_forced_decoding_makes_exactly_so_many_steps(tmp_path: Path) -> None:
    model = transduce.load(random_folder(tmp_path / "model", recipe_of(TINY), 40), device="cpu")
    assert model.source.size == model.target.size == 40
    for beam in (1, 3):
        options = model.search_options(beam=beam, **forced(7))
        found = decode_batch(model.model, [[5, 6, 7], [8] * 20, [9]], options)
        assert [len(hypotheses[0].token_scores) for hypotheses in found] == [7, 7, 7]


def test_cost_counts_every_product_of_the_reference_model() -> None:
    cost = cost_of(recipe_of().model, 7800)
    # A gate matrix is 4 x width by input and by state; both directions; the attention's keys.
    assert cost.source == 2 * 4 * 256 * (512 + 256) + 512 * 512
    # The decoder's LSTM, the read-out from state and context, the vocabulary.
    assert cost.target == 4 * 512 * (512 + 512) + 512 * (512 + 512) + 512 * 7800
    assert cost.sentence == 512 * 2 * 512  # the first state
    assert cost.attended == 512 + 512
    # One multiplication is 2 operations forwards; training does two more products backwards.
    alone = cost.source * 10 + cost.sentence + 20 * (cost.target + 10 * cost.attended)
    assert cost.decoding(10, 20, 1) == 2 * alone
    assert cost.training(10, 20) == pytest.approx(6 * alone / 20)
    assert cost.training(10, 20, sampled=True) == pytest.approx(6 * alone / 20 - 4 * 512 * 7800)
    assert cost.decoding(10, 20, 5) > 4 * cost.decoding(10, 20, 1)


def test_what_cannot_be_loaded_is_said_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plain(folders: str, device: str = "auto") -> None: ...
    def precise(folders: str, device: str = "auto", precision: str = "auto") -> None: ...

    monkeypatch.setattr(transduce, "load", plain)
    able, note = usable(["fp32", "int8"])
    assert able == {"fp32": {}} and "int8" in note and "precision" in note
    monkeypatch.setattr(transduce, "load", precise)
    assert usable(["fp32", "int8"]) == (
        {"fp32": {"precision": "fp32"}, "int8": {"precision": "int8"}},
        "",
    )
