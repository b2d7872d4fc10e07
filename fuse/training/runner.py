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
from .member import Member
from .rates import BETAS, cached_rates, make_optimiser
from .scoring import Scores, score_model
from .stopping import is_last_epoch
from .task import Checkpoint, Fit, Progress, State, Task, TrainingError

_GATHERED = 64
"""Batches of pooled vectors that are gathered at once: the call costs more than the bytes."""
_PART_ROWS = 32
"""Rows with texts of similar length that are fused together. In real posts padded to the longest
text of a batch of 128, six positions in ten would be padding."""


class Runner:
    """One member in training: its rows, model, optimiser, schedule and progress.

    Args:
        setting: What to train and how.
        bank: The features.
        task: Rows and seed of the member.
        names: Class names.
        whole_length: Pad texts to the longest of the bank.
        index: Index of the member in the run.
        checkpoint: Where it is stored.
        initial: Its initial state, if it was drawn together with those of other members.

    Attributes:
        items: Items of `FeatureBank.items` to learn from.
        held_out: Items of the validation rows.
        steps: Steps of an epoch.
    """

    def __init__(
        self,
        setting: Setting,
        bank: FeatureBank,
        task: Task,
        names: Sequence[str],
        whole_length: bool,
        index: int,
        checkpoint: Checkpoint,
        initial: InitialState | None = None,
    ) -> None:
        bank = bank.using(*setting.encoders)
        self.setting, self.bank, self.task = setting, bank, task
        self._index, self._checkpoint, self._whole_length = index, checkpoint, whole_length
        self.items = bank.items(task.train, variants=setting.variants)
        self.held_out = bank.items(task.validation, variants=False)
        # With one copy a post an epoch counts the posts.
        all_copies = setting.variants and setting.copies == "all"
        counted = self.items if all_copies else bank.items(task.train, variants=False)
        solved = setting.optimiser == "lbfgs"
        self.steps = 1 if solved else math.ceil(len(counted) / setting.batch_size)
        if initial is None:
            (initial,) = draw_initial(setting, bank, [task], names)
        model, self._landmarks = initial.model, task.train[initial.landmarks.numpy()]
        state = checkpoint.load(index)
        if state is None and model.standardisations:
            model.fit_standardisation(bank.moments(counted, **bank_options(setting)))
        if state is not None and solved:
            model.fold()  # as the solver left it
        loss = make_loss(setting, bank, counted, len(names))
        self.member = Member(model, loss).to(bank.labels.device)
        if state is None and not solved:
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
        if state is not None:
            self._restore(state)
        self._fused: FusedRows | None = None
        if not solved:
            items = torch.cat([self.items, self.held_out])
            self._fused = FusedRows.of(model, bank, setting, items)

    @property
    def epochs_done(self) -> int:
        return len(self.progress.history)

    def rows(self, number: int) -> Tensor:
        """Items of each step of an epoch, (steps, batch, 3) on the CPU; the first epoch is 0.

        The last batch is filled up with rows drawn again: batch normalisation never sees a batch
        of one row, and stacked members have equal shapes.
        """
        order = torch.Generator().manual_seed(_derive_seed(self.task.seed, number, 0))
        items = self.items
        if self.setting.pairing == "free":
            items = self.bank.paired_freely(items, order)
        if self.setting.copies == "one":
            items = draw_one_copy(items, order)
        count = self.steps * self.setting.batch_size
        rows = [torch.randperm(len(items), generator=order)]
        while sum(map(len, rows)) < count:
            rows.append(torch.randperm(len(items), generator=order))
        return items[torch.cat(rows)[:count]].unflatten(0, (self.steps, -1))

    def fit_landmarks(self) -> Tensor | None:
        """Sets the landmarks of a kernel model; see `Classifier.fit_landmarks`."""
        model = self.member.model
        if not model.landmarks:
            return None
        items = self.bank.items(self._landmarks, variants=False)
        batch = gather_batch(self.bank, items, self.setting)
        # A missing vector becomes the mean, which is 0 once standardised.
        norms = model.standardisations.items()
        return model.fit_landmarks({name: batch.filled(name, norm.mean) for name, norm in norms})

    def noise(self, number: int) -> NoiseStream:
        """The noise of an epoch."""
        return NoiseStream(_derive_seed(self.task.seed, number, 1), self.bank.labels.device)

    def rates(self, number: int) -> list[tuple[float, float]]:
        """Learning rate and first momentum of each step of an epoch."""
        for group in self.optimiser.param_groups if self.task.learning_rates else ():
            group["lr"] = self.task.learning_rates[number]
        return [self._rates_at(number * self.steps + step) for step in range(self.steps)]

    def _rates_at(self, step: int) -> tuple[float, float]:
        if self._rates is None:
            return self.optimiser.param_groups[0]["lr"], BETAS[0]
        return self._rates(step)

    def batches(self, rows: Tensor) -> Iterator[list[Batch]]:
        """The batches of `rows`, each in parts."""
        size = self.setting.batch_size
        if self._fused is not None:
            for items in rows:
                yield [self._fused.batch(items)]
            return
        rows = rows.flatten(0, 1).to(self.bank.labels.device)
        if self.setting.level == "pooled":
            for items in rows.split(_GATHERED * size):
                for batch in gather_batch(self.bank, items, self.setting).split(size):
                    yield [batch]
            return
        for items in rows.split(size):
            items = items[self.bank.text_order(items)]
            batch = gather_batch(self.bank, items, self.setting, self._whole_length)
            yield [batch] if self._whole_length else list(batch.split(_PART_ROWS, trim=True))

    def step(self, rate: float, momentum: float) -> None:
        """Updates the weights by their gradients."""
        if self.setting.clip:
            torch.nn.utils.clip_grad_norm_(self.member.parameters(), self.setting.clip)
        (group,) = self.optimiser.param_groups
        group["lr"], group["betas"] = rate, (momentum, BETAS[1])
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.member.model)

    def count_steps(self, done: int) -> None:
        """Sets the number of steps done, where they were not made by `step`."""
        for state in self.optimiser.state.values():
            state["step"] = torch.tensor(float(done))
        if self.average is not None:
            self.average.n_averaged.fill_(done)

    def finish_epoch(self, loss: float, scores: Scores) -> EpochRecord:
        """Records the scores, stores the best weights, and decides whether to stop.

        Args:
            loss: Mean loss of the epoch.
            scores: Computes the scores of the validation rows.

        Raises:
            TrainingError: The loss is not finite.
        """
        progress, setting = self.progress, self.setting
        epoch = len(progress.history) + 1
        if not math.isfinite(loss):
            raise TrainingError(f"The loss is {loss} in epoch {epoch}.", "Lower the learning rate.")
        validation = scores()
        record = EpochRecord(
            member=self._index + 1,
            epoch=epoch,
            loss=loss,
            learning_rate=self._rates_at(epoch * self.steps)[0],
            **({} if validation is None else validation.model_dump()),
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
            progress.store_best(self.scored_model.state_dict())
        progress.stopped = is_last_epoch(setting, epoch, progress.best + 1)
        if self._checkpoint.is_due(self._index, progress.stopped):
            self._checkpoint.save(self._index, self._state())
        return record

    def scores(self) -> MetricScores | None:
        """Scores of the validation rows; None without such rows."""
        if not len(self.task.validation):
            return None
        batch = None if self._fused is None else self._fused.batch(self.held_out)
        return score_model(self.scored_model, self.bank, self.task.validation, self.setting, batch)

    def result(self) -> Fit:
        """The model with the weights of the best or last epoch."""
        model = clone(self.scored_model)
        if self.setting.keep == "best":
            self.progress.load_best(model.state_dict())
        model.fold()
        history = self.progress.history
        return Fit(model.eval(), history[self.progress.best], history)

    @property
    def scored_model(self) -> Classifier:
        """The model that is scored and returned: the averaged one, if there is one."""
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

    def _restore(self, state: State) -> None:
        self.member.load_state_dict(state["member"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        history = [EpochRecord.model_validate(record) for record in state["history"]]
        best_state: dict[str, Tensor] = {}
        if state["best_state"]:
            best = clone(self.scored_model)
            best.load_state_dict(state["best_state"])  # raises if it does not fit
            best_state = best.state_dict()
        self.progress = Progress(history, state["best"], best_state, state["stopped"])


def _derive_seed(seed: int, epoch: int, stream: int) -> int:
    """The seed of one use in one epoch."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> 1)
