"""`transduce demo`: a model that pronounces English words, trained and shown in three minutes."""

from __future__ import annotations

import random
from pathlib import Path

from rich.console import Console

from transduce.assessment import Assessment, Trial, read_trial
from transduce.commands.evaluate import assess_with_bar, show
from transduce.commands.showing import console, table
from transduce.commands.training import start_anew
from transduce.evaluation.figures import attention_png, attention_text
from transduce.folder import FIGURES
from transduce.recipe import Recipe
from transduce.recipe_files import load_recipe
from transduce.training.loop import train
from transduce.transducer import Transducer, load

RECIPE = Path(__file__).with_name("demo.yaml")
WORDS = 2000  # of the test set: the score then has an interval of about two points
SHOWN = 12


def run_demo(*, minutes: float, folder: Path, fresh: bool) -> None:
    """Train (or go on, or find it done), evaluate on unseen words, show words and attention."""
    out = console()
    recipe = load_recipe(RECIPE, [f"training.minutes={minutes}"])
    out.print("Learning to pronounce English words: letters in, sounds out.", style="bold")
    out.print(
        "The data is CMUdict, the Carnegie Mellon Pronouncing Dictionary.\n"
        f"The model, an LSTM with attention, trains for {minutes:g} minutes.\n"
        "Ctrl-C stops it, and the same command goes on.\n"
    )
    if fresh:
        start_anew(folder)
    train(recipe, folder)
    model = load(folder, device="cpu")
    trial = sample(recipe)
    assessment = assess_with_bar(model, trial)
    out.print("\nWords the model has never seen", style="bold")
    show(out, str(folder), assessment)
    chosen = random.Random(1).sample(range(len(trial.sources)), min(SHOWN, len(trial.sources)))
    show_words(out, assessment, chosen)
    show_attention(out, model, trial, chosen, folder)
    show_next(out, folder, trial.sources[chosen[0]])


def sample(recipe: Recipe) -> Trial:
    """The same WORDS test words each time, with every pronunciation that the dictionary accepts."""
    whole = read_trial(recipe.data.test, group=True)
    count = min(WORDS, len(whole.sources))
    taken = random.Random(0).sample(range(len(whole.sources)), count)
    label = f"{count:,} of the {len(whole.sources):,} words of {whole.label}"
    return Trial(label, [whole.sources[i] for i in taken], [whole.references[i] for i in taken])


def show_words(out: Console, assessment: Assessment, chosen: list[int]) -> None:
    """Some words, drawn at random before anything was decoded, beside the truth."""
    rows = []
    for index in chosen:
        references, answer = assessment.references[index], assessment.outputs[index].text
        mark = "✓" if answer.split() in [reference.split() for reference in references] else "✗"
        rows.append([assessment.sources[index], mark, answer, " | ".join(references)])
    out.print(f"\n{len(rows)} of them, drawn at random", style="bold")
    out.print(table(["word", "", "model", "dictionary"], rows))


def show_attention(
    out: Console, model: Transducer, trial: Trial, chosen: list[int], folder: Path
) -> None:
    """Where the model looked while it pronounced the longest of the words that fit the screen."""
    words = [trial.sources[index] for index in chosen]
    word = max((w for w in words if len(w) <= 14), key=len, default=words[0])
    answer = model(word)
    if answer.attention is None:
        return
    path = folder / FIGURES / "attention.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = answer.token_scores
    attention_png(answer.attention, answer.columns, answer.rows, path, token_scores=scores)
    out.print(f"\nWhere it looked for “{word}” (sounds down, letters across)", style="bold")
    out.print(
        attention_text(answer.attention, answer.columns, answer.rows, width=out.width), markup=False
    )
    out.print(f"The same as a picture: {path}", markup=False)


def show_next(out: Console, folder: Path, word: str) -> None:
    """Commands to try on the model."""
    out.print("\nTry next", style="bold")
    commands = [
        f"echo {word} | transduce predict {folder}",
        f"echo {word} | transduce predict {folder} --n-best 3 --json",
        f"transduce figure attention {folder} transduce",
        f"transduce evaluate {folder} --data cmudict:test --report {folder}/report.html",
        f"transduce inspect {folder}",
        "transduce data list",
        f"transduce train {RECIPE} training.minutes=20 --folder runs/better",
    ]
    for command in commands:
        out.print(f"  {command}", markup=False)
