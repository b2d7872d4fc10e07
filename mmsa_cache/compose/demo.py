"""``mmsa demo``: a generated sample set and all steps on it, without network.

Each pair is a sentence from templates and a drawn scene. Text or picture alone does not determine
all labels; both together determine most. A tenth of the labels is random, so no model is perfect.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fuse.figures.records import Scores
from mmsa_cache.config.loading import load_settings
from mmsa_cache.console import say
from mmsa_cache.data.layouts.listing import LABELS, UNLABELLED
from mmsa_cache.data.layouts.rows import read_labels
from mmsa_cache.data.layouts.tables import HEADER
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import UNSYNCED_DISK, discard, make_folders, write_atomically, write_new
from mmsa_cache.files.paths import check_paths, resolve_declared
from mmsa_cache.files.untrusted import read_regular

from .extraction.extract import extract_splits
from .predict.evaluate import evaluate
from .predict.predict import PredictRequest, predict
from .search.search import SearchRequest, search
from .session.session import Session
from .train.request import TrainRequest
from .train.train import train

NOTE = "synthetic data: texts from templates, pictures drawn by mmsa demo"
TEST_SHARE = 0.15
_LABEL_NOISE = 0.1
_MOST_BYTES = 1 << 20
"""Limit of a text, and of the settings file."""
FEWEST = 60
"""Smallest number of pairs."""
_SHARES = (0.5, 0.2, 0.3)

_OPENINGS = ("Just got to", "Here we are at", "One hour in", "Finally saw", "Back from", "Look at")
_LOCATIONS = ("the harbour", "the old station", "the park", "the match", "the market", "the hill")
_CLOSINGS = {
    "positive": ("love it", "what a wonderful day", "so happy right now", "best trip ever"),
    "neutral": ("as every week", "open until six", "photo from today", "more to follow"),
    "negative": ("what a waste", "so disappointed", "never again", "this is awful"),
}
_SKIES = {"positive": (246, 196, 92), "neutral": (150, 156, 160), "negative": (44, 48, 84)}

_CONFIG = """# Written by mmsa demo. {note}.
[data]
root = "posts"
note = "{note}"
[text]
model = "all-MiniLM-L6-v2"
[image]
model = "swinv2_tiny_window8_256"
weights = "random"
size = 64
kwargs = {{ img_size = 64, window_size = 4, embed_dim = 32, depths = [2, 2], num_heads = [2, 4] }}
"""


def make_posts(root: Path, pairs: int, seed: int) -> None:
    """Writes a sample set in the report's layout, and ``answers.txt`` for its test rows."""
    rng = np.random.default_rng(seed)
    make_folders(root / "pairs")
    rows = []
    for number in range(pairs):
        label = str(rng.choice(LABELS, p=_SHARES))
        # Text or picture may be neutral whatever the label.
        mute = rng.choice(["text", "image", "none"], p=[0.3, 0.3, 0.4])
        tone = "neutral" if mute == "text" else label
        sky = "neutral" if mute == "image" else label
        if rng.random() < _LABEL_NOISE:
            label = str(rng.choice(LABELS, p=_SHARES))
        opening, location, closing = map(rng.choice, (_OPENINGS, _LOCATIONS, _CLOSINGS[tone]))
        text = f"{opening} {location}, {closing}"
        guid = str(number + 1)
        picture = io.BytesIO()
        _scene(sky, rng).save(picture, "JPEG", quality=85)
        pair = {".txt": f"{text} #{guid}\n".encode(), ".jpg": picture.getvalue()}
        for suffix, content in pair.items():
            path = root / "pairs" / f"{guid}{suffix}"
            discard(path)  # left by an interrupted demo
            write_new(path, content, UNSYNCED_DISK)
        rows.append((guid, label))
    cut = round(pairs * (1 - TEST_SHARE))
    for name, chosen in (
        ("answers.txt", rows[cut:]),
        ("test_without_label.txt", [(guid, UNLABELLED) for guid, _ in rows[cut:]]),
        ("train.txt", rows[:cut]),
    ):
        lines = [HEADER, *(f"{guid},{label}" for guid, label in chosen)]
        write_atomically(root / name, ("\n".join(lines) + "\n").encode())


def _write_config(path: Path) -> None:
    """Writes the demo's settings; refuses a folder with other settings or posts.

    Raises:
        SettingsError: The folder has other settings or posts.
    """
    config = _CONFIG.format(note=NOTE).encode()
    posts = path.with_name("posts")
    existing = path if path.exists() or not posts.exists() else posts
    try:
        own = read_regular(existing, _MOST_BYTES).startswith(config.splitlines()[0])
    except FileNotFoundError:
        own = True
    except (OSError, ValueError):  # posts is a folder
        own = False
    if not own:
        raise SettingsError(f"{existing} is not the demo's.", "Give another --dir.")
    write_atomically(path, config)


def _scene(tone: str, rng: np.random.Generator) -> Image.Image:
    """A hill under a sky of the tone's colour, 160×120 pixels."""
    width, height = 160, 120
    shade = np.linspace(1.1, 0.8, height)[:, None, None] * np.array(_SKIES[tone])
    noise = rng.normal(0, 14, (height, width, 3)) + rng.normal(0, 12, 3)
    canvas = np.clip(shade + noise, 0, 255).astype(np.uint8)
    picture = Image.fromarray(canvas).filter(ImageFilter.GaussianBlur(1))
    draw = ImageDraw.Draw(picture)
    x, y = int(rng.integers(15, width - 45)), int(rng.integers(8, 40))
    size = int(rng.integers(14, 30))
    draw.ellipse((x, y, x + size, y + size), fill=(250, 240, 200))
    ridge = height - rng.integers(15, 50, 9)
    points = [(i * width // 8, int(top)) for i, top in enumerate(ridge)]
    green = tuple(int(v) for v in rng.integers(40, 110, 3))
    draw.polygon([(0, height), *points, (width, height)], fill=green)
    return picture


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scores on some rows."""

    what: str
    rows: int
    accuracy: float
    macro_f1: float | None

    @classmethod
    def of(cls, what: str, scores: Scores) -> ScoredRows:
        return cls(what, scores.rows, scores.accuracy, scores.macro_f1)


@dataclass(frozen=True, slots=True)
class PredictedPost:
    """A post of the test split and its prediction."""

    guid: str
    text: str
    predicted: str
    probability: float
    true: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Results of the demo."""

    notes: list[str]
    results: list[ScoredRows]
    study: dict[str, float]
    """``trial``, ``inner_score`` and ``outer_score`` of the search."""
    predictions: list[PredictedPost]
    report: str
    """Path of the report."""
    seconds: float


def make_demo(folder: str | Path, pairs: int = 360) -> Path:
    """Makes a project of generated posts: an ``mmsa.toml`` of small encoders, and ``posts``.

    Args:
        folder: Folder of the project; existing posts are kept.
        pairs: Pairs to generate.

    Returns:
        The folder.

    Raises:
        SettingsError: The folder holds something else, or an argument is invalid.
    """
    check_paths(folder=folder)
    if not (isinstance(pairs, int) and pairs >= FEWEST):
        raise SettingsError(f"pairs={pairs!r}: a whole number from {FEWEST} is expected.")
    folder = resolve_declared(Path(folder))
    make_folders(folder)
    _write_config(folder / "mmsa.toml")
    if not (folder / "posts" / "train.txt").is_file():
        make_posts(folder / "posts", pairs, seed=47)
    return folder


def run(folder: Path, pairs: int, trials: int) -> Demonstration:
    """Makes the sample set and runs extract, search, train and predict on it.

    Args:
        folder: Folder of the project; a second run resumes in it.
        pairs: Pairs to generate.
        trials: Trials of the search.
    """
    started = time.monotonic()
    folder = make_demo(folder, pairs)
    with contextlib.chdir(folder):
        settings = load_settings({})
        say(f"Sample set: {folder / 'posts'}. Note: {NOTE}; the image encoder has random weights.")
        extract_splits(settings, "all")
        searched = search(Session(settings), SearchRequest("demo", trials))
        trained = train(Session(settings), TrainRequest(studies=["demo"], folds=3))
        predicted = predict(PredictRequest(trained.run, split="test"))
        write_atomically(Path("predictions.csv"), predicted.as_csv().encode())
        answers = Path("posts/answers.txt")
        (tested,) = evaluate(trained.run, answers)
        truth = {row.guid: row.label or 0 for row in read_labels(answers)}
        posts = [
            PredictedPost(
                guid,
                read_regular(Path(f"posts/pairs/{guid}.txt"), _MOST_BYTES).decode().strip(),
                tag,
                max(probabilities),
                LABELS[truth[guid]],
            )
            for (guid, probabilities), tag in zip(predicted.rows[:3], predicted.tags, strict=False)
        ]
    codes = list(truth.values())
    majority = max(codes.count(code) for code in set(codes)) / len(codes)
    return Demonstration(
        trained.notes,
        [
            ScoredRows("most frequent class, test rows", len(codes), majority, None),
            ScoredRows.of("trained model, test rows", tested.scores),
            ScoredRows.of("trained model, outer rows", trained.figures.outer),
        ],
        {
            "trial": searched.trial,
            "inner_score": searched.inner_score,
            "outer_score": searched.outer_score,
        },
        posts,
        str(folder / trained.directory / "report.html"),
        round(time.monotonic() - started, 1),
    )
