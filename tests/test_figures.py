import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mfpde.compare import compare
from mfpde.disk import Disk
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import Circle, Normal, Samples, two_layer
from mfpde.figures import FORMATS, curves, densities, draw_comparison, draw_network, draw_run, network, panels, style
from mfpde.measure import Density, DensityFunction, Measure, Particles
from mfpde.run import Certificate, Run, Status
from mfpde.storage import StoredRun

pytestmark = pytest.mark.filterwarnings("error")

LINE = Domain((Axis("theta", -3.0, 3.0),))
TURN = Domain((Axis("theta", 0.0, 2.0 * np.pi, periodic=True),))
GENERATOR = np.random.default_rng(0)


def stored(
    label: str,
    domain: Domain,
    times: Sequence[float],
    measures: Sequence[Measure],
    energy: dict[str, np.ndarray] | None = None,
    dissipation: float = 1.0,
    title: str = "Case",
) -> StoredRun:
    """A run whose certificate has one row for each saved time."""
    t, ones = np.array(times, dtype=float), np.ones(len(times))
    terms = {"two_layer": np.exp(-t)} if energy is None else energy
    total = np.sum(list(terms.values()), axis=0) if terms else 0.0 * t
    rows = np.stack([t, 0.0 * t, total, ones, 0.0 * t, dissipation * ones], axis=1)
    run = Run(t, list(measures), terms, Certificate(rows), Status.DONE)
    return StoredRun(Path(f"/nowhere/{label}.h5"), domain, run, {"label": label, "title": title})


def bell(domain: Domain, cells: int, centre: float, width: float = 0.5) -> Density:
    grid = Grid(domain, (cells,) * domain.dimension)
    return DensityFunction(lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / width**2), domain).on(grid)


def cloud(domain: Domain, count: int) -> Particles:
    return Particles.equal(domain.lower + GENERATOR.random((count, domain.dimension)) * (domain.upper - domain.lower))


def pair(domain: Domain, cells: int, times: Sequence[float]) -> list[StoredRun]:
    grids = [bell(domain, cells, 0.1 * k) for k in range(len(times))]
    return [stored("grid", domain, times, grids), stored("cloud", domain, times, [cloud(domain, 60)] * len(times))]


def names(paths: Sequence[Path]) -> list[str]:
    assert all(path.stat().st_size > 1000 for path in paths)
    return [path.name for path in paths]


def texts(figure: Figure | None) -> str:
    assert figure is not None
    return "\n".join(str(t.get_text()) for t in figure.findobj(matplotlib.text.Text))


def drawn(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """The points of every line with some on the axes' own coordinates."""
    lines = [line for line in axes.lines if line.get_transform() == axes.transData and len(np.asarray(line.get_xdata()))]
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines]


ALL = ["density.png", "energy.png", "distance.png"]


def test_line(tmp_path: Path) -> None:
    runs = pair(LINE, 120, [0.0, 0.1, 100.0])
    assert names(draw_comparison(runs, compare(runs), tmp_path / "new" / "folder")) == ALL
    assert "60 particles" in texts(curves.make_trajectory_figure(runs[1]))


def test_many_times_are_thinned() -> None:
    many = np.linspace(0.0, 1.0, 101)
    found = panels.choose_times(pair(LINE, 10, many.tolist()), 6)
    assert found == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_plane_with_floor(tmp_path: Path) -> None:
    square = Domain((Axis("weight", -2.0, 2.0, frozen=True), Axis("theta_2", -2.0, 2.0)))
    runs = pair(square, 12, [0.0, 1.0])
    assert names(draw_comparison(runs, compare(runs), tmp_path)) == ALL


def test_space(tmp_path: Path) -> None:
    space = Domain((Axis("x", -2.0, 2.0), Axis("y", -2.0, 2.0), Axis("phi", -np.pi, np.pi, periodic=True)))
    run = stored("grid", space, [0.5, 1.0], [bell(space, 6, 0.0)] * 2)
    assert names(draw_run(run, tmp_path)) == ["grid-density.png", "grid-energy.png"]


def test_marginals_keep_the_mass() -> None:
    space = Domain((Axis("x", -2.0, 2.0), Axis("y", 0.0, 3.0), Axis("z", 0.0, 0.5)))
    density = DensityFunction(lambda p: np.exp(p[:, 0]) * (1.0 + p[:, 1] + p[:, 2]), space).on(Grid(space, (4, 6, 3)))
    part = panels._marginal(density, space, (0, 2))
    assert isinstance(part, Density)
    assert part.grid.cells == (4, 3)
    assert part.mass == pytest.approx(1.0)


def test_single_saved_time(tmp_path: Path) -> None:
    runs = pair(LINE, 40, [2.0])
    assert names(draw_comparison(runs, compare(runs), tmp_path)) == ALL
    assert curves.make_trajectory_figure(runs[1]) is None


def test_a_single_time_is_compared_by_bars_with_their_numbers() -> None:
    runs = [stored("grid", LINE, [2.0], [bell(LINE, 40, 0.0)]), stored("cloud", LINE, [2.0], [bell(LINE, 40, 0.5)])]
    comparison = compare(runs)
    figure = curves.make_distance_figure(runs, comparison)
    (bar,) = figure.axes[0].patches
    assert bar.get_width() == pytest.approx(comparison.pairs[0].distance[0])  # type: ignore[attr-defined]
    shown = texts(figure)
    assert f"{comparison.pairs[0].distance[0]:.3g}" in shown
    assert "distance to grid at t = 2" in shown
    assert "time" not in shown


def test_times_over_decades_are_logarithmic_and_time_0_stands_apart() -> None:
    times = np.array([0.0, 0.1, 1.0, 10.0, 100.0])
    scale = style.choose_time_scale(times)
    places = scale.place(times)
    assert scale.logarithmic
    assert places[1:] == pytest.approx(times[1:])
    assert places[0] < scale.gap < 0.1
    assert np.isnan(scale.place(np.array([0.05]))).all(), "a logarithmic axis begins at the first time"
    runs = pair(LINE, 20, times.tolist())
    figure = curves.make_distance_figure(runs, compare(runs))
    zero, line = drawn(figure.axes[0])[:2]
    assert (len(zero[0]), len(line[0])) == (1, 4), "no line across the break"
    assert figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize("times", [np.linspace(0.0, 1.0, 201), np.array([0.0, 1.0, 5.0, 20.0]), np.array([0.0]), np.array([3.0])])
def test_other_times_are_linear(times: np.ndarray) -> None:
    assert not style.choose_time_scale(times).logarithmic


def test_dissipation_below_round_off_is_not_drawn() -> None:
    times = np.linspace(0.0, 10.0, 101)
    decay = np.exp(-8.0 * times)
    noise = np.where(decay > 1e-24, decay, 1e-30 * (1.0 + GENERATOR.random(101)))
    run = stored("grid", LINE, times.tolist(), [bell(LINE, 8, 0.0)] * 101, {"potential": 1.0 + decay})
    run.run.certificate.rows[:, 5] = noise
    figure = curves.make_energy_figure([run])
    assert figure is not None
    ((_, values),) = drawn(figure.axes[1])
    assert values.min() > 1e-17
    assert "values below round-off are not shown" in texts(figure)
    run.run.certificate.rows[:, 5] = 1e-30
    assert len(curves.make_energy_figure([run]).axes) == 1, "nothing is left of it"  # type: ignore[union-attr]


def test_histograms_have_bars_that_suit_the_particles() -> None:
    axis = LINE.axes[0]
    normal = Particles.equal(GENERATOR.normal(0.0, 0.5, (4000, 1)).clip(-3.0, 3.0))
    bars = densities._histogram(normal, axis, 0.0)
    assert np.sum(bars.heights * np.diff(bars.edges)) == pytest.approx(1.0)
    assert 0.05 < bars.edges[1] - bars.edges[0] < 0.12, "2 · IQR · N^(-1/3) is 0.085"
    narrow = densities._histogram(Particles.equal(normal.points * 1e-3), axis, 0.05)
    assert narrow.edges[1] - narrow.edges[0] == pytest.approx(0.05), "not narrower than the cells of a density"
    point = densities._histogram(Particles.equal(np.zeros((100, 1))), axis, 0.0)
    assert len(point.heights) == densities._MOST_BARS


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (0.05, "0.05"), (1000.0, "1000"), (1e6, "10⁶"), (2.5e-7, "2.5·10⁻⁷")])
def test_numbers_in_words(value: float, shown: str) -> None:
    assert style.write_number(value) == shown


def test_a_fine_disk_is_smooth_and_keeps_its_values() -> None:
    disk = Disk(("a", "b"), 2.0)
    density = DensityFunction(lambda p: 1.0 + 0.2 * p[:, 0], disk).on(disk.grid((20, 40)))
    x, y, values = densities._tiles(density)
    assert np.hypot(x, y).max() == pytest.approx(2.0)
    inner = np.hypot(x, y) < 1.9
    assert values[inner] == pytest.approx((1.0 + 0.2 * x[inner]) / (4.0 * np.pi), rel=1e-2)


def test_constant_zero_energy(tmp_path: Path) -> None:
    zero = {"potential": np.zeros(2)}
    runs = [stored(name, LINE, [0.0, 1.0], [bell(LINE, 30, c)] * 2, zero, 0.0) for name, c in (("a", 0.0), ("b", 0.3))]
    assert names(draw_run(runs[0], tmp_path)) == ["a-density.png", "a-energy.png"]
    assert "relative energy gap" in texts(curves.make_distance_figure(runs, compare(runs)))


def test_one_particle(tmp_path: Path) -> None:
    places = [Particles.equal(np.array([[x]])) for x in (0.1, 0.4)]
    written = draw_run(stored("one", LINE, [0.0, 1.0], places), tmp_path)
    assert names(written) == ["one-density.png", "one-energy.png", "one-trajectories.png"]
    runs = [stored("one", LINE, [0.0], places[:1]), stored("grid", LINE, [0.0], [bell(LINE, 30, 0.0)])]
    assert "one (heights: weights)" in texts(densities.make_density_figure(runs))


def test_noise_shows_only_what_is_finite(tmp_path: Path) -> None:
    both = {"two_layer": np.array([1.0, 0.1]), "entropy": np.array([0.2, -0.1])}
    noisy = both | {"entropy": np.full(2, np.inf)}
    runs = [
        stored("grid", LINE, [0.0, 1.0], [bell(LINE, 30, 0.0)] * 2, both),
        stored("noise", LINE, [0.0, 1.0], [cloud(LINE, 50)] * 2, noisy, np.nan),
    ]
    assert names(draw_comparison(runs, compare(runs), tmp_path)) == ALL
    figure = curves.make_energy_figure(runs)
    assert figure is not None
    whole, partial, dissipation = figure.axes
    assert [axes.get_ylabel() for axes in (whole, partial)] == ["energy $E$", "energy without\nentropy"]
    assert [len(drawn(axes)) for axes in (whole, partial, dissipation)] == [1, 2, 1]
    assert drawn(partial)[1][1] == pytest.approx([1.0, 0.1])
    assert "not known with noise or minibatches: noise" in texts(figure)
    alone = stored("noise", LINE, [0.0], [cloud(LINE, 50)], {"entropy": np.array([np.inf])}, np.nan)
    assert names(draw_run(alone, tmp_path)) == ["noise-density.png"]


def test_a_cut_peak_is_announced() -> None:
    values = np.full(512, 0.8 / 6.0)
    values[0] += 0.2 * 512 / 6.0
    spiky = stored("atom", LINE, [1.0], [Density(Grid(LINE, (512,)), values)])
    assert "peak 17.2, cut at 0.8" in texts(densities.make_density_figure([spiky]))
    assert "cut" not in texts(densities.make_density_figure([stored("bell", LINE, [1.0], [bell(LINE, 512, 0.0, 0.01)])]))


def test_odd_text_and_runs_without_common_times(tmp_path: Path) -> None:
    runs = [
        stored("_$a_{", LINE, [0.0, 1.0], [bell(LINE, 30, 0.0)] * 2, title="$ costs { much " * 20),
        stored("_$a_{", LINE, [2.0], [bell(LINE, 30, 0.5)]),
        stored("nothing", LINE, [], [], {}),
    ]
    runs[2].run.certificate.rows.resize((1, 6))
    assert names(draw_comparison(runs, None, tmp_path)) == ALL[:2]


def test_wrong_arguments(tmp_path: Path) -> None:
    run = stored("grid", LINE, [0.0], [bell(LINE, 30, 0.0)])
    for wrong in (lambda: draw_run(run, tmp_path, ("gif",)), lambda: draw_comparison([run], None, tmp_path, ("png", "gif"))):
        with pytest.raises(ValueError, match="one of png, pdf, svg, got 'gif'"):
            wrong()
    with pytest.raises(ValueError, match="at least one run"):
        draw_comparison([], None, tmp_path)
    with pytest.raises(ValueError, match="different domains"):
        draw_comparison([run, stored("turn", TURN, [0.0], [bell(TURN, 30, 3.0)])], None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    run = stored("turn", TURN, [1.0], [bell(TURN, 200, 3.0)])
    with matplotlib.rc_context({"font.size": 20.0, "lines.linewidth": 9.0}):
        first = draw_run(run, tmp_path / "first", FORMATS)
        assert matplotlib.rcParams["font.size"] == 20.0
    second = draw_run(run, tmp_path / "second", FORMATS)
    assert names(first) == [f"turn-{stem}.{form}" for stem in ("density", "energy") for form in ("png", "pdf", "svg")]
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second]


def test_trajectories_go_round_the_circle() -> None:
    angles = [np.array([[6.0]]), np.array([[0.2]]), np.array([[0.5]])]
    path = curves._paths([Particles.equal(a) for a in angles], TURN)
    assert path == pytest.approx(np.array([[6.0, 2.0 * np.pi + 0.2, 2.0 * np.pi + 0.5]]))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("theta_1", r"$\theta_{1}$"),
        ("x2", "$x_{2}$"),
        ("b", "$b$"),
        ("w_a", "$w_{a}$"),
        ("weight", "weight"),
        ("mu", r"$\mu$"),
        ("ab", "ab"),
    ],
)
def test_symbols(name: str, shown: str) -> None:
    assert style.write_symbol(name) == shown


def test_networks(tmp_path: Path) -> None:
    neurons = Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3]))
    line = two_layer(LINE, "tanh", Normal(), neurons)
    path = draw_network(line, pair(LINE, 40, [0.0, 1.0]), tmp_path, ("svg", "png"))
    assert path == tmp_path / "network.svg"
    assert (tmp_path / "network.png").stat().st_size > 1000
    turn = two_layer(TURN, "relu", Circle(), DensityFunction(lambda p: np.ones(len(p)), TURN), angle=True)
    assert draw_network(turn, pair(TURN, 40, [0.0]), tmp_path / "turn") == tmp_path / "turn" / "network.png"
    assert draw_network(line, [stored("nothing", LINE, [], [], {})], tmp_path) is None


def test_networks_of_data(tmp_path: Path) -> None:
    square = Domain((Axis("a", -2.0, 2.0), Axis("b", -2.0, 2.0)))
    x = np.linspace(1.0, 2.0, 20)[:, None]
    biased = two_layer(square, "tanh", Samples(x), np.sin(x[:, 0]), bias=True)
    found = network.find_input_line(biased)
    assert found is not None
    assert found.data is not None
    assert found.place[0] == pytest.approx(0.97)
    assert np.all(found.inputs[:, 1] == 1.0)
    assert draw_network(biased, pair(square, 8, [0.0, 1.0]), tmp_path) == tmp_path / "network.png"
    points = np.array([[1.0, 0.0], [0.0, -1.0], [0.5, 0.5]])
    off = network.find_input_line(two_layer(square, "tanh", Samples(points), np.ones(3)))
    assert off is not None
    assert off.data is not None
    assert off.data[0] == pytest.approx([0.0, 1.5 * np.pi])
    assert off.remark == "1 data off the unit circle not shown"


def test_no_network_of_three_inputs(tmp_path: Path) -> None:
    space = Domain(tuple(Axis(name, -1.0, 1.0) for name in "xyz"))
    term = two_layer(space, "tanh", Samples(GENERATOR.random((10, 3))), np.ones(10))
    assert draw_network(term, pair(space, 4, [0.0]), tmp_path) is None


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kept", ["neurons", "density"])
def test_the_teacher_is_drawn_where_the_file_tells_it(dimension: int, kept: str) -> None:
    domain = Domain(tuple(Axis(name, -3.0, 3.0) for name in "xy"[:dimension]))
    words = {"neurons": [[1.0] * dimension, [-2.0] * dimension], "weights": [0.7, -0.3]} if kept == "neurons" else {"density": "exp(-x**2)"}
    runs = pair(domain, 12, [0.0, 1.0])
    plain = densities.make_density_figure(runs)
    runs[0].attributes["teacher"] = json.dumps(words)
    taught = densities.make_density_figure(runs)
    assert plain is not None
    assert taught is not None
    entries = [text.get_text() for legend in taught.legends for text in legend.get_texts()]
    assert any("teacher" in entry for entry in entries)
    drawn = [sum(len(axes.collections) + len(axes.lines) for axes in figure.axes) for figure in (plain, taught)]
    assert drawn[1] > drawn[0]
    runs[0].attributes["teacher"] = "{damaged"
    assert densities.make_density_figure(runs) is not None
