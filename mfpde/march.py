"""The one loop over saved times, for every solver: certificates, progress, checkpoints, interruption, resume.

It knows no scheme. A solver's state is a dataclass of arrays, numbers and strings with a field ``time``; ``advance`` makes one
step and may reuse the arrays of the state that it is given, so a state is handed over, never shared.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import Measure
from mfpde.run import STEP_FIELDS, Certificate, Run, Status, StepFailed, StepRecord
from mfpde.signals import interruption


class State(Protocol):
    """A plain dataclass value."""

    time: float
    __dataclass_fields__: ClassVar[dict[str, Any]]


class Flow(Protocol):
    """A solver prepared for one problem."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The choices made for this problem, for people."""

    def start(self) -> Any:
        """The state at time 0."""

    def advance(self, state: Any, until: float) -> Any:
        """The state after one step, at most at time ``until`` and exactly there if it is reached. Raises StepFailed."""

    def measure(self, state: Any) -> Measure:
        """The measure of a state, sharing no memory with it."""

    def energies(self, state: Any) -> dict[str, float]:
        """The energy of each term."""

    def record(self, state: Any) -> StepRecord:
        """The certificate of the step that led to this state."""

    def restore(self, values: dict[str, Any]) -> Any:
        """The state with these field values."""


@runtime_checkable
class Timeless(Protocol):
    """A flow that leads to its result in one step: nothing is known at the times between."""

    def save_at(self, wanted: Sequence[float]) -> Sequence[float]:
        """The times among those wanted at which there is something to save."""

    @property
    def tables(self) -> dict[str, FloatArray]:
        """What was found besides the density, as columns "group/name"."""


@runtime_checkable
class Leaping(Protocol):
    """A flow that can make many steps at a time."""

    def leap(self, state: Any, until: float) -> tuple[Any, Sequence[Sequence[float]]]:
        """The state after some steps, at most at time ``until``, and the rows of their records; no rows where ``advance`` has to make
        the next step. Short enough for signals and checkpoints to wait for."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What is kept at a saved time."""

    time: float
    measure: Measure
    energies: dict[str, float]


class Recorder(Protocol):
    """Where frames, step records and checkpoints go."""

    def resume(self) -> tuple[dict[str, Any], int] | None:
        """Field values of the last checkpoint's state and the number of frames kept before it; None to start afresh."""

    def steps(self, rows: Sequence[Sequence[float]]) -> None:
        """Keep the certificates of some steps, each as the row of its ``StepRecord``."""

    def frame(self, frame: Frame) -> None:
        """Keep a saved time."""

    @property
    def due(self) -> bool:
        """Whether a checkpoint is wanted now."""

    def checkpoint(self, values: dict[str, Any]) -> None:
        """Keep everything so far, and this state to go on from."""


class Progress(Protocol):
    """Told how far the run is."""

    def at(self, time: float, steps: int) -> None:
        """The run is at ``time`` after ``steps`` steps."""


@dataclass(eq=False)
class Memory:
    """A recorder that keeps everything in memory and makes no checkpoints."""

    frames: list[Frame] = field(default_factory=list)
    rows: list[Sequence[float]] = field(default_factory=list)
    due: bool = False

    def resume(self) -> None:
        """Nothing to resume from."""
        return

    def steps(self, rows: Sequence[Sequence[float]]) -> None:
        """Keep the certificates of some steps."""
        self.rows.extend(rows)

    def frame(self, frame: Frame) -> None:
        """Keep a saved time."""
        self.frames.append(frame)

    def checkpoint(self, values: dict[str, Any]) -> None:
        """Nothing: memory does not outlive the process."""

    def run(self, status: Status, message: str, notes: tuple[str, ...], tables: dict[str, FloatArray] | None = None) -> Run:
        """Everything that was kept."""
        names = self.frames[0].energies if self.frames else {}
        return Run(
            np.array([f.time for f in self.frames]),
            [f.measure for f in self.frames],
            {name: np.array([f.energies[name] for f in self.frames]) for name in names},
            Certificate(np.array(self.rows, dtype=float).reshape(-1, len(STEP_FIELDS))),
            status,
            message,
            notes,
            tables or {},
        )


def state_values(state: State) -> dict[str, Any]:
    """The fields of a state, for a checkpoint."""
    return {f.name: getattr(state, f.name) for f in fields(state)}


def march(
    flow: Flow, save_at: Sequence[float], recorder: Recorder, progress: Progress | None = None, stopped: Sequence[int] | None = None
) -> tuple[Status, str]:
    """Run ``flow`` through the times ``save_at`` into ``recorder``; returns how it ended and why.

    SIGINT, SIGTERM and SIGHUP end the run after the step under way; a second SIGINT ends it at once. However the march ends, the last
    thing that it does is a checkpoint. Checkpoints fall between steps and do not change them, so a resumed run makes the same steps
    to the same bits.

    ``stopped``: the signals of an ``interruption`` around the call, which then also sees those that come too late to end this run.
    """
    if isinstance(flow, Timeless):
        save_at = flow.save_at(save_at)
    leap = flow.leap if isinstance(flow, Leaping) else None
    with interruption() if stopped is None else nullcontext(stopped) as stopped:
        found = recorder.resume()
        state = flow.start() if found is None else flow.restore(found[0])
        if found is None:
            recorder.steps([flow.record(state).row()])
        done, steps = (0 if found is None else found[1]), 0
        status, message = Status.DONE, ""
        try:
            for target in save_at[done:]:
                while state.time < target and not stopped:
                    if recorder.due:
                        recorder.checkpoint(state_values(state))
                    state, rows = leap(state, target) if leap is not None else (state, [])
                    if not len(rows):
                        state = flow.advance(state, target)
                        rows = [flow.record(state).row()]
                    steps += len(rows)
                    recorder.steps(rows)
                    if progress is not None:
                        progress.at(state.time, steps)
                if state.time >= target:
                    recorder.frame(Frame(target, flow.measure(state), flow.energies(state)))
                if stopped:
                    break
        except StepFailed as failure:
            status, message = failure.status, str(failure)
        if stopped and status is Status.DONE:
            status, message = Status.INTERRUPTED, f"stopped at time {state.time:.6g}"
        recorder.checkpoint(state_values(state))
        return status, message
