"""One member in training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim import swa_utils
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fuse.figures.records import EpochRecord, MetricScores
from fuse.models.classifier import Classifier
from fuse.models.cloning import clone
from fuse.models.noise import NoiseStream
from fuse.setting import Setting
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Batch

from .classifier import bank_options, gather_batch
from .copies import draw_one_copy
from .fused_rows import FusedRows
from .initial import InitialState, draw_initial, make_loss
from .programs import Member
from .rates import BETAS, cached_rates, make_optimiser
from .scoring import Scores, score_alone
from .stopping import is_last_epoch
from .task import Checkpoint, Fit, Progress, State, Task, TrainingError

_GATHERED = 64
"""Batches of pooled vectors that are gathered at once: a gather costs more than its bytes."""
_PART_ROWS = 32
"""Rows with texts of like length that are fused together. Padded to the longest text of a batch of
128, six positions in ten of real posts would be padding."""


class Runner:
    """One member in training: its rows, model, optimiser, schedule and progress.

    Args:
        setting: What to train and how.
        bank: The features.
        task: What the member learns from.
        names: Class names.
        whole_length: Pad texts to the longest of the bank.
        place: Of the member in the run.
        checkpoint: Where it is kept.
        begins: What it begins with, if that was drawn together with other members'.

    Attributes:
        items: Rows that it learns from, of `FeatureBank.items`.
        held_out: Its validation rows, likewise.
        steps: Of an epoch.
    """

    def __init__(
        self,
        setting: Setting,
        bank: FeatureBank,
        task: Task,
        names: Sequence[str],
        whole_length: bool,
        place: int,
        checkpoint: Checkpoint,
        begins: InitialState | None = None,
    ) -> None:
        bank = bank.using(*setting.encoders)
        self.setting, self.bank, self.task, self.place = setting, bank, task, place
        self._checkpoint = checkpoint
        self._whole_length = whole_length
        device = bank.labels.device
        self.items = bank.items(task.train, variants=setting.variants)
        # What is counted: with one copy a post these are the posts.
        apart = setting.variants and setting.copies == "all"
        counted = self.items if apart else bank.items(task.train, variants=False)
        solved = setting.optimiser == "lbfgs"
        self.steps = 1 if solved else math.ceil(len(counted) / setting.batch_size)
        if begins is None:
            (begins,) = draw_initial(setting, bank, [task], names)
        model, self._landmarks = begins.model, task.train[begins.landmarks.numpy()]
        saved = checkpoint.load(place)
        if saved is None:
            if model.standardisations:
                model.fit_standardisation(bank.moments(counted, **bank_options(setting)))
        elif solved:
            model.fold()  # as the solver left it
        self.member = Member(model, make_loss(setting, bank, counted, len(names))).to(device)
        if saved is None and not solved:
            self.fit_landmarks()
        self.optimiser = make_optimiser(setting, self.member.parameters())
        self.average: swa_utils.AveragedModel | None = None
        if setting.ema:
            self.average = swa_utils.AveragedModel(
                model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(setting.ema), use_buffers=True
            )
        scheduled = not task.learning_rates
        self._rates = cached_rates(setting, self.steps * setting.epochs) if scheduled else None
        self._plateau: ReduceLROnPlateau | None = None
        if scheduled and setting.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(self.optimiser, mode="max", factor=0.2, patience=1)
        self.progress = Progress()
        if saved is not None:
            self._restore(saved)
        self.held_out = bank.items(task.validation, variants=False)
        known = torch.cat([self.items, self.held_out])
        self._fused = None if solved else FusedRows.of(model, bank, setting, known)

    @property
    def epochs_done(self) -> int:
        return len(self.progress.history)

    def rows(self, number: int) -> Tensor:
        """The items of every step of an epoch, (steps, batch, 3) on the CPU; the first epoch is 0.

        The last batch is filled up with rows drawn anew: batch normalisation never sees a rest of
        one row, and stacked members see equal shapes.
        """
        order = torch.Generator().manual_seed(_derive(self.task.seed, number, 0))
        items = self.items
        if self.setting.pairing == "free":
            items = self.bank.paired_freely(items, order)
        if self.setting.copies == "one":
            items = draw_one_copy(items, order)
        wanted = self.steps * self.setting.batch_size
        places = [torch.randperm(len(items), generator=order)]
        while sum(map(len, places)) < wanted:
            places.append(torch.randperm(len(items), generator=order))
        return items[torch.cat(places)[:wanted]].unflatten(0, (self.steps, -1))

    def fit_landmarks(self) -> Tensor | None:
        """Takes the training rows that a kernel model compares with; see `Classifier`."""
        model = self.member.model
        if not model.landmarks:
            return None
        items = self.bank.items(self._landmarks, variants=False)
        batch = gather_batch(self.bank, items, self.setting)
        # What a row lacks is the mean there: 0 once standardised.
        norms = model.standardisations.items()
        return model.fit_landmarks({name: batch.filled(name, of.mean) for name, of in norms})

    def noise(self, number: int) -> NoiseStream:
        """What draws the noise of an epoch."""
        return NoiseStream(_derive(self.task.seed, number, 1), self.bank.labels.device)

    def rates(self, number: int) -> list[tuple[float, float]]:
        """Learning rate and first momentum of every step of an epoch."""
        for group in self.optimiser.param_groups if self.task.learning_rates else ():
            group["lr"] = self.task.learning_rates[number]
        return [self._rates_at(number * self.steps + step) for step in range(self.steps)]

    def _rates_at(self, step: int) -> tuple[float, float]:
        if self._rates is None:
            return self.optimiser.param_groups[0]["lr"], BETAS[0]
        return self._rates(step)

    def batches(self, rows: Tensor) -> Iterator[list[Batch]]:
        """The batches of `rows`, every one in parts."""
        size = self.setting.batch_size
        if self._fused is not None:
            for chosen in rows:
                yield [self._fused.batch(chosen)]
            return
        rows = rows.flatten(0, 1).to(self.bank.labels.device)
        if self.setting.level == "pooled":
            for many in rows.split(_GATHERED * size):
                for batch in gather_batch(self.bank, many, self.setting).split(size):
                    yield [batch]
            return
        for chosen in rows.split(size):
            chosen = chosen[self.bank.text_order(chosen)]
            batch = gather_batch(self.bank, chosen, self.setting, self._whole_length)
            yield [batch] if self._whole_length else list(batch.split(_PART_ROWS, trim=True))

    def step(self, rate: float, momentum: float) -> None:
        """Moves the weights along the gradients that a program left."""
        if self.setting.clip:
            torch.nn.utils.clip_grad_norm_(self.member.parameters(), self.setting.clip)
        (group,) = self.optimiser.param_groups
        group["lr"], group["betas"] = rate, (momentum, BETAS[1])
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.member.model)

    def count_steps(self, done: int) -> None:
        """Notes how many steps the weights have moved, where not `step` moved them."""
        for state in self.optimiser.state.values():
            state["step"] = torch.tensor(float(done))
        if self.average is not None:
            self.average.n_averaged.fill_(done)

    def finish_epoch(self, loss: float, scores: Scores) -> EpochRecord:
        """Notes the scores, keeps what is best, and decides whether to go on.

        Args:
            loss: Mean of the epoch.
            scores: Gives those of the validation rows.

        Raises:
            TrainingError: The loss is not finite.
        """
        progress, setting = self.progress, self.setting
        epoch = len(progress.history) + 1
        if not math.isfinite(loss):
            raise TrainingError(f"The loss is {loss} in epoch {epoch}.", "Lower the learning rate.")
        found = scores()
        record = EpochRecord(
            member=self.place + 1,
            epoch=epoch,
            loss=loss,
            learning_rate=self._rates_at(epoch * self.steps)[0],
            **({} if found is None else found.model_dump()),
        )
        progress.history.append(record)
        if self._plateau is not None and len(self.task.validation):
            self._plateau.step(record.value(setting.metric))
        if setting.keep == "last":
            progress.best = epoch - 1
        elif progress.best < 0 or record.value(setting.metric) > progress.history[
            progress.best
        ].value(setting.metric):
            progress.best = epoch - 1
            progress.keep(self.scored.state_dict())
        progress.stopped = is_last_epoch(setting, epoch, progress.best + 1)
        if self._checkpoint.wants(self.place, progress.stopped):
            self._checkpoint.save(self.place, self._state())
        return record

    def scores(self) -> MetricScores | None:
        """Of the validation rows, if there are any."""
        if not len(self.task.validation):
            return None
        batch = None if self._fused is None else self._fused.batch(self.held_out)
        return score_alone(self.scored, self.bank, self.task.validation, self.setting, batch)

    def result(self) -> Fit:
        """The kept epoch's model."""
        model = clone(self.scored)
        if self.setting.keep == "best":
            self.progress.give(model.state_dict())
        model.fold()
        history = self.progress.history
        return Fit(model.eval(), history[self.progress.best], history)

    @property
    def scored(self) -> Classifier:
        """The model that is scored and kept: the averaged one, if there is one."""
        if self.average is None:
            return self.member.model
        averaged = self.average.module
        assert isinstance(averaged, Classifier)
        return averaged

    def _state(self) -> State:
        return {
            "member": self.member.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self._plateau is None else self._plateau.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "history": [record.as_json() for record in self.progress.history],
            "best": self.progress.best,
            "best_state": self.progress.best_state,
            "stopped": self.progress.stopped,
        }

    def _restore(self, saved: State) -> None:
        self.member.load_state_dict(saved["member"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self._plateau is not None:
            self._plateau.load_state_dict(saved["schedule"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        history = [EpochRecord.model_validate(record) for record in saved["history"]]
        kept: dict[str, Tensor] = {}
        if saved["best_state"]:
            best = clone(self.scored)
            best.load_state_dict(saved["best_state"])  # it says what does not fit
            kept = best.state_dict()
        self.progress = Progress(history, saved["best"], kept, saved["stopped"])


def _derive(seed: int, epoch: int, stream: int) -> int:
    """A seed of its own for each use in each epoch."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> 1)
