"""The steps of the mixture: each does something, and says what."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence

from tests.support.pairs import TONE
from tests.support.small_work import call, call_json, mmsa

from .commands import Commands
from .invariants import Invariants
from .project import Project, rows_in_store

Step = Callable[["Steps"], str]
_MOST_RUNS = 6
_TINY = ("--set", "epochs=1", "--set", "text_dim=16", "--set", "image_dim=16", "--set", "head=")


class Steps:
    """What the steps work on.

    Args:
        project: The folder.
        commands: Runs commands as processes; None: all run in this process, undisturbed.
        held: The invariants.
        chance: Draws.
        address: Of an object store; "": there is none.
    """

    def __init__(
        self, project: Project, commands: Commands | None, held: Invariants, address: str = ""
    ) -> None:
        self.project, self.commands, self.held = project, commands, held
        self.chance = project.chance
        self.address = address
        self._asked: dict[str, int] = {}
        """Study → finished trials that it must have."""
        self._runs: list[str] = []
        self._count = 0

    def _run(self, *arguments: str, hurt: Callable[[], object] = lambda: None) -> str:
        if self.commands is None:
            call(self.project.folder, *arguments)
            return ""
        return self.commands.run(*arguments, hurt=hurt)

    def extract(self) -> str:
        """Completes the store."""
        workers = ("--workers", "2") if self.commands and self.chance.random() < 0.4 else ()
        told = self._run(
            *("extract", "--split", "all", *workers), hurt=lambda: self.held.rows(complete=False)
        )
        self.held.rows(complete=True)
        self.held.no_leftovers("cache")
        return f"extract {' '.join(workers)} {told}"

    def _changed(self, what: str, labels: dict[str, str], without: Sequence[str] = ()) -> str:
        """Changes the data, which training must notice, and extracts."""
        self.project.change(labels, without)
        refused = mmsa(self.project.folder, "train", "--name", "refused", *_TINY, code=4)
        assert "mmsa extract" in refused.output, refused.output
        return f"{what}, {self.extract()}"

    def add(self) -> str:
        absent = self.project.absent
        some = self.chance.sample(absent, min(len(absent), self.chance.randint(1, 12)))
        if not some:
            return self.remove()
        labels = {guid: self.chance.choice(sorted(TONE)) for guid in some}
        return self._changed(f"{len(some)} rows added", labels)

    def relabel(self) -> str:
        some = self.chance.sample(sorted(self.project.labels), self.chance.randint(1, 4))
        labels = {
            guid: self.chance.choice(sorted(TONE.keys() - {self.project.labels[guid]}))
            for guid in some
        }
        return self._changed(f"{len(some)} rows relabelled", labels)

    def remove(self) -> str:
        labels = sorted(self.project.labels)
        if len(labels) < self.project.fewest + 8:
            return self.relabel()
        some = self.chance.sample(labels, self.chance.randint(1, 8))
        return self._changed(f"{len(some)} rows removed", {}, some)

    @property
    def study(self) -> str:
        """Labels are part of a study's identity: one for every state of the data."""
        return f"of-{self.project.version}"

    def search(self) -> str:
        study = self.study
        total = self._asked.get(study, 0) + self.chance.randint(1, 4)
        told = self._run(
            *("search", "--study", "mixed", "--name", study, "--trials", str(total)),
            *("--workers", "2" if self.commands else "1"),
            hurt=lambda: self.held.trials(),
        )
        self._asked[study] = total
        self.held.trials(study, total)
        self.held.no_leftovers("studies")
        return f"search {study} to {total} trials {told}"

    def train(self) -> str:
        if self._asked.get(self.study) and self.chance.random() < 0.6:
            what = ["--study", self.study, "--single"]
        else:
            what = ["--folds", "2", "--outer", "grouped", *_TINY]
        name = f"run-{self._count}"
        self._count += 1
        told = self._run("train", "--name", name, *what)
        self._runs.append(name)
        self.held.no_leftovers("runs")
        listed = {run["run"] for run in call_json(self.project.folder, "runs", "ls")}
        assert listed == set(self._runs), f"runs are {listed}, wanted {self._runs}"
        if len(self._runs) > _MOST_RUNS:
            call(self.project.folder, "runs", "rm", self._runs.pop(0), "--yes")
        return f"train {name} {' '.join(what[:2])} {told}"

    def predict(self) -> str:
        """In bulk, by a run of any age: rows of the store, and posts as files."""
        if not self._runs:
            return self.train()
        run, folder = self.chance.choice(self._runs), self.project.folder
        what = self.chance.choice([["--split", "test"], ["--data", "bulk.jsonl"]])
        if what[0] == "--data":
            self._write_bulk()
        out = folder / f"out{'.jsonl' if what[0] == '--data' else '.csv'}"
        told = self._run("predict", "--run", run, *what, "--out", out.name, "--force")
        self.held.answer(f"{run} {what}", out.read_bytes())
        return f"predict {run} {' '.join(what)} {told}"

    def _write_bulk(self) -> None:
        pairs = self.project.folder / "posts/pairs"
        posts = [
            {"guid": guid, "text": (pairs / f"{guid}.txt").read_text(), "image": f"{guid}.jpg"}
            for guid in map(str, range(16))
        ]
        for post in posts:
            post["image"] = str((pairs / post["image"]).relative_to(self.project.folder))
        lines = "".join(json.dumps(post) + "\n" for post in posts)
        (self.project.folder / "bulk.jsonl").write_text(lines)

    def prune(self) -> str:
        told = self._run("cache", "prune", "--unused", "--yes")
        rows = self.held.rows(complete=True, pruned=True)
        self.held.no_leftovers("cache")
        return f"prune to {rows} rows {told}"

    def share(self) -> str:
        """Pushed, pulled elsewhere, and complete there."""
        if not self.address:
            return self.prune()
        told = self._run("cache", "push", self.address)
        self.held.no_leftovers("cache")
        pulled = self.project.folder / "pulled"
        shutil.rmtree(pulled, ignore_errors=True)
        told += self._run("cache", "pull", self.address, "--cache", pulled.name)
        there, own = rows_in_store(pulled), rows_in_store(self.project.cache)
        assert own.items() <= there.items() <= self.project.reference.items(), "rows differ"
        self.held.no_leftovers(pulled.name)
        return f"push and pull of {len(there)} rows {told}"

    def look(self) -> str:
        """What reads alone."""
        verb = self.chance.choice(
            [["cache", "ls"], ["runs", "ls"], ["check"], ["search", "--list"]]
        )
        call_json(self.project.folder, *verb)
        return " ".join(verb)


MIXTURE: dict[Step, int] = {
    Steps.add: 3,
    Steps.relabel: 2,
    Steps.remove: 2,
    Steps.extract: 1,
    Steps.search: 4,
    Steps.train: 2,
    Steps.predict: 3,
    Steps.prune: 2,
    Steps.share: 1,
    Steps.look: 1,
}
"""How often each is drawn, beside the others."""
