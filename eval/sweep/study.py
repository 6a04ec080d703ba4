"""The study behind a sweep, in Optuna's storage: which trials there are, whose they are, how they ended.

Several workers, on one machine or many, share it. A trial is in the plan once, and stays RUNNING until somebody says
how it ended: who finds that its owner is gone takes it over, and its run resumes where it was. So each trial is
finished once, whatever is killed.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from eval.sweep.spec import Plan, Setting
from eval.sweep.storage import open_storage
from r1_mini.config.yaml_file import dump as dump_yaml
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import dump
from r1_mini.pipeline.store import fingerprint, first_difference
from r1_mini.system.files import write_json_atomic, write_text_atomic
from r1_mini.system.locks import holding

TRIALS = "trials.json"
STALE = 90.0
"""Seconds without a beat of its owner, on another machine, after which a trial is taken over."""
UNOWNED = 10.0
"""The same for a trial that nobody has signed: its worker was killed between taking and signing it."""
_REPEATS = 50
"""So many proposals of what was tried already, and the space is exhausted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a setting with a seed, as the study has it."""

    number: int
    id: int
    state: TrialState
    setting: str
    recipe: str
    overrides: tuple[str, ...]
    seed: int
    folder: str
    value: float | None
    reason: str | None
    """Why it failed."""
    seconds: float | None


class Study:
    """A sweep's trials in a storage. UserError if it does not answer, or holds another sweep of this name."""

    def __init__(self, plan: Plan, folder: Path, url: str | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(folder, url)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
        if plan.sweep.name in optuna.get_all_study_names(self.storage):  # only read, as it may be another's
            self.study = optuna.load_study(study_name=plan.sweep.name, storage=self.storage, pruner=pruner)
        else:
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=plan.sweep.name,
                direction=plan.sweep.direction,
                pruner=pruner,
                load_if_exists=True,
            )
        self._check(url)
        self._repeats = 0  # settings that TPE proposed again, in a row
        self._beats: dict[int, tuple[Any, float]] = {}  # trial -> the last beat seen, and when it was new

    def _check(self, url: str | None) -> None:
        """Note what this study is of, or compare."""
        recipes = {name: recipe.model_dump(mode="json") for name, recipe in self.plan.recipes.items()}
        ours = {"sweep": self.plan.sweep.model_dump(mode="json"), "recipes": recipes}
        there = self.study.user_attrs.get("plan")
        if there is None:
            self.study.set_user_attr("plan", ours)
            self.study.set_user_attr("begun", time.time())
            there = ours
        if found := first_difference(there, ours):
            key, old, new = found
            what = f"holds another sweep: {key} is {old} there and {new} now"
            raise UserError(
                what, where=url or str(self.folder), fix="choose another folder with --out, or another name"
            )

    def write_files(self) -> None:
        """sweep.yaml, and the recipes that trials start from as this sweep has them."""
        (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        (self.folder / "recipes").mkdir(exist_ok=True)
        write_text_atomic(self.folder / "sweep.yaml", dump_yaml(self.plan.sweep.model_dump(mode="json")))
        for name, recipe in self.plan.recipes.items():
            write_text_atomic(recipe_file(self.folder, name), dump(recipe))

    @property
    def begun(self) -> float:
        """When the sweep was begun, seconds since 1970."""
        return float(self.study.user_attrs["begun"])

    def trials(self) -> list[Trial]:
        """All trials of the plan so far, in order, without twins, which two workers planned at once."""
        return [_of(frozen) for frozen in self._frozen() if "key" in frozen.user_attrs and not _is_dropped(frozen)]

    def _frozen(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self.study._study_id, deepcopy=False)

    def write_plan(self) -> None:
        """Add what is missing of all settings that are known beforehand, and of those that have been drawn."""
        there = {frozen.user_attrs.get("key") for frozen in self._frozen()}
        for setting in [*self.plan.settings(), *self._drawn_settings()]:
            for seed in self.plan.sweep.seeds.values:
                if _key(setting, seed) not in there:
                    self._add(setting, seed, TrialState.WAITING)

    def _add(self, setting: Setting, seed: int, state: TrialState) -> None:
        attributes = self._attributes(setting, seed)
        params, distributions = dict(setting.params), dict(setting.distributions)
        self.study.add_trial(
            create_trial(state=state, params=params, distributions=distributions, user_attrs=attributes)
        )

    def _attributes(self, setting: Setting, seed: int) -> dict[str, Any]:
        key = _key(setting, seed)
        return {
            "key": key,
            "setting": setting.name,
            "recipe": setting.recipe,
            "changes": dict(setting.changes),
            "seed": seed,
            "overrides": setting.overrides(self.plan.sweep.seeds, seed),
            "folder": f"{_slug(setting.name)}-{key[:6]}-seed{seed}",
        }

    def _drawn_settings(self) -> list[Setting]:
        """The settings that TPE has proposed and that were noted."""
        if self.plan.sweep.sampler != "tpe" or self.plan.sweep.settings:
            return []
        found = {}
        for frozen in self._frozen():
            if "changes" in frozen.user_attrs:
                notes = frozen.user_attrs
                setting = Setting(
                    notes["setting"], notes["recipe"], notes["changes"], frozen.params, frozen.distributions
                )
                found[notes["setting"]] = setting
        return list(found.values())

    def claim(self) -> tuple[Trial, contextlib.ExitStack] | None:
        """A trial that is now this process's, with what to close at its end; None if there is none to be had now.

        First those whose owner is gone, then the first that waits, then, for TPE, a new one.
        """
        self.write_plan()
        frozen = self._frozen()
        firsts: dict[Any, int] = {}
        for each in frozen:
            if not _is_dropped(each):
                firsts.setdefault(each.user_attrs.get("key"), each.number)
        for each in sorted(frozen, key=lambda trial: trial.state != TrialState.RUNNING):
            if each.state == TrialState.RUNNING and self._is_abandoned(each):
                if "key" not in each.user_attrs:  # drawn by TPE, and nobody knows as what
                    self._drop(each)
                elif held := self._own(each._trial_id):
                    return _of(self.storage.get_trial(each._trial_id)), held
            elif each.state == TrialState.WAITING:
                if firsts[each.user_attrs["key"]] < each.number:
                    self._drop(each)
                elif not self.is_over_time and self.storage.set_trial_state_values(each._trial_id, TrialState.RUNNING):
                    held = self._own(each._trial_id)
                    if held:
                        return _of(self.storage.get_trial(each._trial_id)), held
        return self._draw()

    def _draw(self) -> tuple[Trial, contextlib.ExitStack] | None:
        """A new setting by TPE, if the plan has room for one more."""
        sweep = self.plan.sweep
        if sweep.settings or sweep.sampler != "tpe" or self.is_over_time:
            return None
        if len(self._drawn_settings()) >= (sweep.trials or 0):
            return None
        seed = sweep.sampler_seed + len(self._frozen())
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=8)
        trial = self.study.ask()
        setting = self.plan.drawn(trial)
        if setting.name in {other.setting for other in self.trials()}:  # proposed again: its seeds are in the plan
            self._drop(self.storage.get_trial(trial._trial_id))
            self._repeats += 1
            return None
        self._repeats = 0
        for name, value in self._attributes(setting, sweep.seeds.values[0]).items():
            self.storage.set_trial_user_attr(trial._trial_id, name, value)
        held = self._own(trial._trial_id)
        return (_of(self.storage.get_trial(trial._trial_id)), held) if held else None

    def _own(self, trial_id: int) -> contextlib.ExitStack | None:
        """Sign a running trial; None if a process on this machine has it."""
        notes = self.storage.get_trial(trial_id).user_attrs
        path = (self.folder / "trials" / f".{notes['folder']}.lock").resolve()
        path.touch()
        held = contextlib.ExitStack()
        if not held.enter_context(holding(path, wait=False)):
            return None
        owner = {"machine": _machine(), "lock": str(path), "beat": 0}
        with contextlib.suppress(UpdateFinishedTrialError):  # its owner lives after all, and is done
            self.storage.set_trial_user_attr(trial_id, "owner", owner)
            return held
        held.close()
        return None

    def beat(self, trial: Trial) -> None:
        """Say that the owner of a trial is alive; once a few seconds is enough."""
        owner = dict(self.storage.get_trial(trial.id).user_attrs["owner"])
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial.id, "owner", {**owner, "beat": owner["beat"] + 1})

    def _is_abandoned(self, frozen: FrozenTrial) -> bool:
        owner = frozen.user_attrs.get("owner")
        if owner and owner["machine"] == _machine():
            lock = Path(owner["lock"])
            if not lock.exists():  # somebody has cleared the folder
                return True
            with holding(lock, wait=False) as was_free:
                return was_free
        beat = owner and (owner["machine"], owner["beat"])
        now = time.monotonic()
        if frozen._trial_id not in self._beats or self._beats[frozen._trial_id][0] != beat:
            self._beats[frozen._trial_id] = (beat, now)
        return now - self._beats[frozen._trial_id][1] > (STALE if owner else UNOWNED)

    def _drop(self, frozen: FrozenTrial) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(frozen._trial_id, "dropped", True)
            self.storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)

    @property
    def is_over_time(self) -> bool:
        """Whether no trial may begin any more."""
        hours = self.plan.sweep.hours
        return hours is not None and time.time() - self.begun > 3600 * hours

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, for anybody."""
        self.write_plan()
        states = [trial.state for trial in self.trials()]
        if TrialState.RUNNING in states or (TrialState.WAITING in states and not self.is_over_time):
            return False
        wanted = 0 if self.plan.sweep.settings or self.plan.sweep.sampler != "tpe" else self.plan.sweep.trials or 0
        return len(self._drawn_settings()) >= wanted or self.is_over_time or self._repeats >= _REPEATS

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Note a score during training; whether the trial is to end now."""
        running = optuna.Trial(self.study, trial.id)
        running.report(value, step)
        return running.should_prune()

    def write_trials(self) -> None:
        """trials.json: every trial as it stands, for `compare`."""
        write_json_atomic(self.folder / TRIALS, [{**asdict(each), "state": each.state.name} for each in self.trials()])

    def end(self, trial: Trial, state: TrialState, value: float | None, reason: str | None, seconds: float) -> None:
        """Say how a trial ended. If somebody else has said so already, that stands."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial.id, "seconds", round(seconds, 2))
            if reason:
                self.storage.set_trial_user_attr(trial.id, "reason", reason)
            self.study.tell(trial.number, value if state == TrialState.COMPLETE else None, state, skip_if_finished=True)


def recipe_file(folder: Path, name: str) -> Path:
    """Where a recipe of a sweep lies in its folder, with what the sweep sets in all settings."""
    return folder / "recipes" / f"{_slug(Path(name).stem)}-{fingerprint(name)[:6]}.yaml"


def _machine() -> str:
    """This machine, since it was started."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text(encoding='ascii').strip() if boot.exists() else ''}"


def _key(setting: Setting, seed: int) -> str:
    return fingerprint({"recipe": setting.recipe, "changes": dict(setting.changes), "name": setting.name, "seed": seed})


def _slug(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "._=-" else "-" for letter in name)
    return kept.strip("-.")[:60] or "setting"


def _is_dropped(frozen: FrozenTrial) -> bool:
    return bool(frozen.user_attrs.get("dropped"))


def _of(frozen: FrozenTrial) -> Trial:
    notes = frozen.user_attrs
    return Trial(
        frozen.number,
        frozen._trial_id,
        frozen.state,
        notes["setting"],
        notes["recipe"],
        tuple(notes["overrides"]),
        notes["seed"],
        notes["folder"],
        frozen.value if frozen.state == TrialState.COMPLETE else None,  # of a pruned one it is a score in training
        notes.get("reason"),
        notes.get("seconds"),
    )
