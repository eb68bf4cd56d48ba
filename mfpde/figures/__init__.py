"""Figures of runs and comparisons: densities and particles, energies, distances, trajectories and network functions.

Colours are those of Okabe and Ito and of viridis; runs also differ in line style and marker, so that grey prints can be read.
Nothing is cut without a note in the figure, and equal data give equal files.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from mfpde.compare import Comparison
from mfpde.figures.branches import make_branch_figure
from mfpde.figures.curves import make_distance_figure, make_energy_figure, make_trajectory_figure
from mfpde.figures.densities import make_density_figure
from mfpde.figures.network import Network, find_input_line, make_network_figure
from mfpde.figures.refinement import make_refinement_figure
from mfpde.figures.style import make_distinct, use_style
from mfpde.storage import StoredRun
from mfpde.study.refinement import RefinementStudy

if TYPE_CHECKING:
    from mfpde.study.convergence_speed_text import SpeedReport
    from mfpde.study.cross_check import CrossCheck
    from mfpde.study.limit_text import LimitReport
    from mfpde.study.multilayer_report import MultilayerReport
    from mfpde.study.sgd_text import SgdReport
    from mfpde.study.sparse_text import SparseReport
    from mfpde.study.spectrum import Spectrum
    from mfpde.study.stationarity_text import StationarityReport
    from mfpde.study.teacher_recovery import Recovery
    from mfpde.study.time_step import TimeStepStudy
    from mfpde.study.two_scalings_text import ScalingsReport
    from mfpde.study.wide_resnet_text import WideReport

__all__ = [
    "FORMATS",
    "draw_branches",
    "draw_comparison",
    "draw_convergence_speed",
    "draw_cross_check",
    "draw_limit",
    "draw_multilayer",
    "draw_network",
    "draw_refinement",
    "draw_run",
    "draw_sgd",
    "draw_sparse",
    "draw_spectrum",
    "draw_stationarity",
    "draw_teacher_recovery",
    "draw_time_step",
    "draw_two_scalings",
    "draw_wide_resnet",
]

FORMATS = ("png", "pdf", "svg")

_METADATA: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}


def draw_comparison(
    runs: Sequence[StoredRun], comparison: Comparison | None, folder: Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write density, energy and (with a comparison) distance figures of runs of one problem to ``folder``; returns their paths.

    Raises ValueError for an unknown format, no runs or runs on different domains.
    """
    _check_formats(formats)
    if not runs:
        raise ValueError("a figure needs at least one run")
    if any(run.domain != runs[0].domain for run in runs):
        raise ValueError("the runs have different domains, so they cannot share a figure")
    runs = make_distinct(runs)
    with use_style():
        figures = {"density": make_density_figure(runs), "energy": make_energy_figure(runs)}
        if comparison is not None and comparison.pairs:
            figures["distance"] = make_distance_figure(runs, comparison)
        return _save_all(figures, folder, formats)


def draw_run(run: StoredRun, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the density, energy, (particles on a line) trajectory and (stationary states) branch figures of one run to ``folder``,
    named after its file.

    Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    stem = run.path.stem
    with use_style():
        figures = {f"{stem}-density": make_density_figure([run]), f"{stem}-energy": make_energy_figure([run])}
        figures[f"{stem}-trajectories"], figures[f"{stem}-branches"] = make_trajectory_figure(run), make_branch_figure(run)
        return _save_all(figures, folder, formats)


def draw_branches(run: StoredRun, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write LABEL-branches, the stationary states of a run, to ``folder``; returns the paths, none for a run without them.

    Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    with use_style():
        return _save_all({f"{run.path.stem}-branches": make_branch_figure(run)}, folder, formats)


def draw_network(term: Network, runs: Sequence[StoredRun], folder: Path, formats: Sequence[str] = ("png",)) -> Path | None:
    """Write the network functions x ↦ ∫σ(x·θ)ρ_t(dθ) beside the teacher or data, for inputs on a line or circle.

    Returns the first path written, None for other inputs or runs without saved times. Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    runs = make_distinct([run for run in runs if run.run.measures])
    line = find_input_line(term) if runs else None
    if line is None:
        return None
    with use_style():
        return _save_all({"network": make_network_figure(term, line, runs)}, folder, formats)[0]


def draw_refinement(study: RefinementStudy, title: str, solver: str, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-refinement, the errors and orders of a study, to ``folder``; returns the paths, none without a positive error.

    Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    with use_style():
        return _save_all({"study-refinement": make_refinement_figure(study, title, solver)}, folder, formats)


def draw_limit(report: "LimitReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-limit, the statistics and slopes of a particle limit, to ``folder``; returns the paths, none without positive ones.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.limit import make_limit_figure  # which brings the compiler

    _check_formats(formats)
    with use_style():
        return _save_all({"study-limit": make_limit_figure(report)}, folder, formats)


def draw_time_step(study: "TimeStepStudy", title: str, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-time-step, the errors and orders of minimising movements, to ``folder``; returns the paths, none without an error.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.time_step import make_time_step_figure

    _check_formats(formats)
    with use_style():
        return _save_all({"study-time-step": make_time_step_figure(study, title)}, folder, formats)


def draw_cross_check(check: "CrossCheck", runs: Sequence[StoredRun], folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-density, the runs on top of each other, and study-distance, how far they are apart and may be, to ``folder``.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.cross_check import make_cross_check_figure

    _check_formats(formats)
    kept = [run for run in runs if run.run.measures]
    with use_style():
        figures = {"study-density": make_density_figure(kept), "study-distance": make_cross_check_figure(check, runs)}
        return _save_all(figures, folder, formats)


def draw_two_scalings(report: "ScalingsReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-curves, study-paths, study-heat-map and study-lazy, those that the study has, to ``folder``; returns the paths.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.two_scalings import make_curves_figure, make_heat_map_figure, make_lazy_figure, make_paths_figure

    _check_formats(formats)
    table = report.plan.table
    with use_style():
        figures = {
            "study-curves": make_curves_figure(report) if table.curves else None,
            "study-paths": make_paths_figure(report) if table.curves else None,
            "study-heat-map": make_heat_map_figure(report) if table.heat_map else None,
            "study-lazy": make_lazy_figure(report) if table.lazy else None,
        }
        return _save_all(figures, folder, formats)


def draw_sgd(report: "SgdReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-diagram, study-escape, study-training and study-particles, those that the study has, to ``folder``.

    Returns the paths. Raises ValueError for an unknown format.
    """
    from mfpde.figures.sgd import make_diagram_figure, make_escape_figure
    from mfpde.figures.sgd_networks import make_particles_figure, make_training_figure

    _check_formats(formats)
    table = report.plan.table
    with use_style():
        figures = {
            "study-diagram": make_diagram_figure(report) if table.diagram else None,
            "study-escape": make_escape_figure(report) if table.escape else None,
            "study-training": make_training_figure(report) if table.training else None,
            "study-particles": make_particles_figure(report) if table.particles else None,
        }
        return _save_all(figures, folder, formats)


def draw_stationarity(report: "StationarityReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-stationarity, quantities over time, and study-visibility, the difference from the teacher in parts and the spectrum, to
    ``folder``; returns the paths. Raises ValueError for an unknown format."""
    from mfpde.figures.stationarity import make_stationarity_figure, make_visibility_figure

    _check_formats(formats)
    with use_style():
        figures = {"study-stationarity": make_stationarity_figure(report), "study-visibility": make_visibility_figure(report)}
        return _save_all(figures, folder, formats)


def draw_teacher_recovery(report: "Recovery", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-densities (on one axis) and study-recovery to ``folder``; returns the paths. Raises ValueError for an unknown format."""
    from mfpde.figures.teacher_recovery import make_recovery_densities, make_recovery_figure

    _check_formats(formats)
    with use_style():
        figures = {"study-densities": make_recovery_densities(report), "study-recovery": make_recovery_figure(report)}
        return _save_all(figures, folder, formats)


def draw_wide_resnet(report: "WideReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-losses, along all flows, and study-orders, errors by radius and depth, to ``folder``; returns the paths.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.wide_resnet import make_losses_figure, make_orders_figure

    _check_formats(formats)
    with use_style():
        figures: dict[str, Figure | None] = {"study-losses": make_losses_figure(report), "study-orders": make_orders_figure(report)}
        return _save_all(figures, folder, formats)


def draw_multilayer(report: "MultilayerReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-chaos, study-collapse and study-residual, those that the study has, to ``folder``; returns the paths.

    Raises ValueError for an unknown format.
    """
    from mfpde.figures.multilayer import make_chaos_figure, make_collapse_figure, make_residual_figure

    _check_formats(formats)
    table = report.plan.table
    with use_style():
        figures = {
            "study-chaos": make_chaos_figure(report) if table.chaos else None,
            "study-collapse": make_collapse_figure(report) if table.collapse else None,
            "study-residual": make_residual_figure(report) if table.residual else None,
        }
        return _save_all(figures, folder, formats)


def draw_convergence_speed(report: "SpeedReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-speed, means, spreads and masses of clusters over time, and study-clusters, the clusters themselves, to ``folder``.

    Returns the paths. Raises ValueError for an unknown format.
    """
    from mfpde.figures.convergence_speed import make_clusters_figure, make_speed_figure

    _check_formats(formats)
    with use_style():
        return _save_all({"study-speed": make_speed_figure(report), "study-clusters": make_clusters_figure(report)}, folder, formats)


def draw_spectrum(report: "Spectrum", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-spectrum and study-modes to ``folder``; returns the paths. Raises ValueError for an unknown format."""
    from mfpde.figures.spectrum import make_modes_figure, make_spectrum_figure

    _check_formats(formats)
    with use_style():
        figures: dict[str, Figure | None] = {"study-spectrum": make_spectrum_figure(report), "study-modes": make_modes_figure(report)}
        return _save_all(figures, folder, formats)


def draw_sparse(report: "SparseReport", folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write study-excess and study-directions to ``folder``; returns the paths. Raises ValueError for an unknown format."""
    from mfpde.figures.sparse import make_directions_figure, make_excess_figure

    _check_formats(formats)
    with use_style():
        return _save_all({"study-excess": make_excess_figure(report), "study-directions": make_directions_figure(report)}, folder, formats)


def _check_formats(formats: Sequence[str]) -> None:
    wrong = [name for name in formats if name not in FORMATS]
    if wrong or not formats:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {wrong[0] if wrong else 'none'!r}")


def _save_all(figures: dict[str, Figure | None], folder: Path, formats: Sequence[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [path for stem, figure in figures.items() if figure for path in _save(figure, folder / stem, formats)]


def _save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Lay out once, then write each format without the empty margins."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(0.06)
    paths = [stem.with_name(f"{stem.name}.{form}") for form in formats]
    for path, form in zip(paths, formats, strict=True):
        dpi = 150 if form == "png" else 300
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(temporary, format=form, dpi=dpi, metadata=_METADATA[form], bbox_inches=box)
            temporary.replace(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)
    return paths
