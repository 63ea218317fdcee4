"""What a method costs over plain CAM on the same backbone: parameters, operations, and as it runs time and memory."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, runtime_checkable

import torch
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Strict, StrictStr
from pydantic.dataclasses import dataclass as checked
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from wsolbench import backbones, documents, loop, measure, methods, plugins, recipe
from wsolbench.backbone import Backbone, norms_passed_by
from wsolbench.documents import Document, Keys
from wsolbench.errors import Collecting, InputError, Problem, nearest
from wsolbench.loop import Trainer
from wsolbench.measure import Measured, Plan
from wsolbench.method import Method, Net, build, feature_points
from wsolbench.plugins import Count
from wsolbench.trial import Trial

Shapes = Mapping[str, tuple[int, int, int]]
"""Channels, height and width by feature point, and those of `images`."""

BYTES = 4  # of a float32
MIB = 2**20  # bytes

_FILE = ConfigDict(extra="forbid")
_Printed = Annotated[StrictStr, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]
_Whole = Annotated[Count, Strict()]
_Options = dict[StrictStr, Any]


@checked(frozen=True, config=_FILE)
class Reported:
    """What a paper prints, digit by digit."""

    params_mib: _Printed | None = None
    param_overhead_pct: _Printed | None = None
    compute_overhead_pct: _Printed | None = None


@checked(frozen=True, config=_FILE, kw_only=True)
class Line:
    """A network, and what it is called in the table."""

    labels: tuple[StrictStr, StrictStr]  # of the backbone and of the method
    backbone: StrictStr
    method: StrictStr
    backbone_options: _Options = field(default_factory=dict)
    method_options: _Options = field(default_factory=dict)
    against: _Options | None = None  # options of the backbone under plain CAM, where they are others
    reported: Reported = field(default_factory=Reported)
    note: StrictStr | None = None


def _some(rows: tuple[Line, ...]) -> tuple[Line, ...]:
    if not rows:
        raise ValueError("rows is empty; it lists networks")
    return rows


@checked(frozen=True, config=_FILE, kw_only=True)
class OverheadFile:
    """A table as `reports/overhead.yaml` describes it."""

    title: StrictStr
    num_classes: _Whole
    image_size: _Whole  # side, pixels
    rows: Annotated[tuple[Line, ...], AfterValidator(_some)]


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image, forward.

    A multiply-accumulate (MAC) is one of a convolution or a matrix product. Operations are elementwise, and only those
    of what a method inserts or does to images; everything else without parameters counts nothing.
    """

    params: int
    macs: int  # in training
    operations: int  # in training
    inference_macs: int  # for the scores and the score map of one class
    inference_operations: int


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """A row of the table: a network's cost, and how much more it is than that of plain CAM, in percent."""

    backbone: str
    method: str
    params: int
    params_mib: float  # as float32
    param_overhead_pct: float
    macs: int
    operations: int
    compute_overhead_pct: float
    inference_macs: int
    inference_operations: int
    inference_overhead_pct: float
    reported_params_mib: str | None
    reported_param_overhead_pct: str | None
    reported_compute_overhead_pct: str | None
    note: str | None
    measured: Measured | None = None  # beside plain CAM, where that is asked for


@dataclass(frozen=True)
class Overheads:
    """The table, counted, and measured where that is asked for."""

    title: str
    caption: str
    rows: tuple[Overhead, ...]


@runtime_checkable
class SaysOperations(Protocol):
    """A method that says its own elementwise operations, where its paper's way to count them differs from its code."""

    def operations(self, shapes: Shapes) -> int:
        """Of one image in training, forward."""
        ...


def overheads(
    path: Path, only: Sequence[str] = (), plan: Plan | None = None, say: Callable[[str], None] = lambda _: None
) -> Overheads:
    """The table of a file, counted without weights.

    Args:
        path: the file.
        only: labels of a backbone, of a method, or both as `backbone/method`: the rows that are wanted; none: all.
        plan: measure these rows too, and how.
        say: is told which row is measured.

    Raises:
        InputError: every problem with its file and line.
    """
    document = documents.read(path)
    file = overhead_file(document)
    chosen = _chosen(file.rows, only)
    side = file.image_size if plan is None or plan.image_size is None else plan.image_size
    problems: list[str] = []
    rows: list[Overhead] = []
    for number in chosen:
        with _placing(document, ("rows", number), problems):
            rows.append(overhead(file.rows[number], file.num_classes, file.image_size))
            if plan is not None:
                _trial(file.rows[number], side)  # refuses what would fail after other rows have been measured
    if problems:
        raise InputError(*problems)
    caption = _CAPTION.format(file.num_classes, file.image_size)
    if plan is not None:
        device = measure.settle(plan.device)
        caption += " " + _MEASURED.format(plan.pairs, plan.batch_size, side, measure.described(device))
        for place, (number, row) in enumerate(zip(chosen, rows, strict=True)):
            say(f"measuring {place + 1} of {len(rows)}: {row.backbone}, {row.method}")
            rows[place] = replace(row, measured=measured(file.rows[number], file.num_classes, side, plan, device))
    return Overheads(file.title, caption, tuple(rows))


_CAPTION = (
    "{0} classes, one image of {1} x {1} pixels, forward. "
    "A MAC is two operations; operations without parameters are counted by element, those of the method only. "
    "In percent: more than plain CAM on the same backbone; inference makes the scores and one score map."
)
_MEASURED = (
    "Ratios to plain CAM, measured side by side: the median of {0} pairs (lowest to highest), batches of {1} random "
    "images of {2} x {2} pixels, fp32, a step being forward, loss, backward and update; on {3}. "
    "The row of plain CAM is held against itself: its spread is that of the measurement."
)


def _chosen(lines: Sequence[Line], only: Sequence[str]) -> list[int]:
    """The numbers of the rows that are wanted; a label without a row is an `InputError`."""
    labels = [{*line.labels, "/".join(line.labels)} for line in lines]
    known = list(dict.fromkeys("/".join(line.labels) for line in lines))
    unknown = [label for label in only if not any(label in each for each in labels)]
    if unknown:
        there = ", ".join(known)
        raise InputError(*(f"no row {label!r}{nearest(label, known) or '.'} There are: {there}" for label in unknown))
    return [number for number, each in enumerate(labels) if not only or each & set(only)]


def overhead_file(document: Document) -> OverheadFile:
    """The table that the document describes; raises `InputError`."""
    return documents.checked(document, OverheadFile)


@contextmanager
def _placing(document: Document, row: Keys, problems: list[str]) -> Iterator[None]:
    """Add the problems of an `InputError`, each with the line of the name or option that it is about."""
    try:
        yield
    except InputError as error:
        for problem in error.problems:
            key = getattr(problem, "key", "")
            places = [(*row, *group, key) for group in ((), ("backbone_options",), ("method_options",), ("against",))]
            place = next((place for place in places if place in document.lines), row)
            problems.append(f"{document.where(*place)}: {problem}")


def line_of(trial: Trial) -> Line:
    """The network of a trial."""
    return Line(
        labels=(trial.backbone, trial.method),
        backbone=trial.backbone,
        method=trial.method,
        backbone_options=dict(trial.backbone_options),
        method_options=dict(trial.method_options),
    )


def overhead(line: Line, num_classes: int, side: int) -> Overhead:
    """The cost of a network beside that of plain CAM, for images of `side` x `side` pixels."""
    method, network = _made(line)
    options = line.backbone_options if line.against is None else line.against
    plain = _plain(line.backbone, json.dumps(options, sort_keys=True), num_classes, side)
    same = (method, line.backbone_options) == (Method(), options)
    own = plain if same else cost(method, network, num_classes, side)
    return Overhead(
        backbone=line.labels[0],
        method=line.labels[1],
        **vars(own),
        params_mib=own.params * BYTES / MIB,
        param_overhead_pct=_percent(own.params, plain.params),
        compute_overhead_pct=_percent(2 * own.macs + own.operations, 2 * plain.macs),
        inference_overhead_pct=_percent(2 * own.inference_macs + own.inference_operations, 2 * plain.inference_macs),
        **{f"reported_{name}": printed for name, printed in asdict(line.reported).items()},
        note=line.note,
    )


def _percent(count: int, plain: int) -> float:
    return 100 * (count - plain) / plain  # of whole numbers: equal ones differ by 0, not by a rounding


def _made(line: Line) -> tuple[Method, Backbone]:
    """The method and its backbone; raises `InputError` with everything that is wrong with both."""
    problems: list[str] = []
    with Collecting(problems):
        plugins.make(backbones, line.backbone, line.against or {})
    with Collecting(problems):
        network = without_weights(line.backbone, line.backbone_options)
    with Collecting(problems):
        method: Method = plugins.make(methods, line.method, line.method_options)
    if not problems:
        problems += _wrong_points(method, network)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return method, network


def _wrong_points(method: Method, network: Backbone) -> list[Problem]:
    there = ", ".join(network.points)
    return [
        Problem(f"no feature point {point!r}; this backbone has: {there}", option)
        for option in feature_points(type(method))
        for point in getattr(method, option)
        if point not in network.points
    ]


def measured(line: Line, num_classes: int, side: int, plan: Plan, device: torch.device) -> Measured:
    """The network of a row beside plain CAM's as they run, with images of `side` x `side` pixels."""
    method, _ = _made(line)
    trial = _trial(line, side)

    def made(method: Method, options: Mapping[str, Any]) -> Trainer:
        net = build(method, plugins.make(backbones, line.backbone, options).build(), num_classes)
        net.to(device).to(memory_format=torch.channels_last)
        return Trainer(net, method, loop.optimizer(net, trial), device, trial.precision)

    own = partial(made, method, line.backbone_options)
    plain = partial(made, Method(), line.backbone_options if line.against is None else line.against)
    return measure.measure(own, plain, measure.noise(plan.batch_size, side, num_classes), plan.pairs, device)


_STILL = 1e-6  # a learning rate at which random images and labels do no harm


def _trial(line: Line, side: int) -> Trial:
    """What the row's network would train with; raises `InputError` where the images are too small for it."""
    names = {"dataset": "shapes", "backbone": line.backbone, "method": line.method}
    fields = {"weights": "none", "image_size": side, "lr": _STILL, "head_lr": _STILL, "precision": "fp32"}
    return recipe.complete({**names, **line.backbone_options, **line.method_options, **fields})


@cache
def _plain(name: str, options: str, num_classes: int, side: int) -> Cost:
    return cost(Method(), without_weights(name, json.loads(options)), num_classes, side)


def without_weights(name: str, options: Mapping[str, Any]) -> Backbone:
    """A backbone on the meta device, where nothing is computed, for one to change."""
    made = plugins.make(backbones, name, options)
    with torch.device("meta"):
        return made.build()


def cost(method: Method, backbone: Backbone, num_classes: int, side: int) -> Cost:
    """What the network of `method` on `backbone`, which has no weights, costs for one image of `side` x `side`."""
    says = method if isinstance(method, SaysOperations) else None
    shapes = {"images": (3, side, side), **backbone.shapes(side, side)} if says else {}
    with torch.device("meta"):
        net = build(method, backbone, num_classes)
    params = sum(parameter.numel() for parameter in net.parameters())
    with norms_passed_by(net):
        macs, operations = _training(method, net, side)
        inference = _inference(net, side)
    if says:
        operations = says.operations(shapes)
    return Cost(params, macs, operations, *inference)


def _training(method: Method, net: Net, side: int) -> tuple[int, int]:
    """MACs and elementwise operations of a step forward."""
    images, labels = _batch(side)
    targets = torch.empty(1, net.num_classes, device="meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _Counter(net) as counter:
        torch.manual_seed(0)  # a method may change some batches only
        counter.start()
        images, _ = method.augment(images, targets)
        counter.stop()
        _trained_alone(net)(images, labels)
    return counter.macs, counter.operations


def _trained_alone(net: Net) -> Net:
    """In training but for batch normalisation, which counts nothing and cannot learn from a map of one value."""
    net.train()
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
    return net


def untrainable_alone(line: Line, num_classes: int, side: int) -> str | None:
    """Why the network cannot train on a batch of one image, in torch's words; None if it can, or nobody can tell.

    Batch normalisation refuses a map of one value; a method that looks at values has none here.
    """
    method, backbone = _made(line)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # a method may draw
            build(method, backbone, num_classes).train()(*_batch(side))
    except ValueError as error:
        return str(error)
    except Exception:  # noqa: BLE001  as many kinds as there are ways to look at a value
        return None
    return None


def _inference(net: Net, side: int) -> tuple[int, int]:
    """MACs and elementwise operations of scores and a score map."""
    images, labels = _batch(side)
    with torch.no_grad(), _Counter(net) as counter:
        net.head.score_maps(net.eval()(images), labels)
    return counter.macs, counter.operations


def _batch(side: int) -> tuple[Tensor, Tensor]:
    return torch.empty(1, 3, side, side, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")


_REDUCTIONS = frozenset({"amax", "amin", "max", "mean", "min", "norm", "prod", "std", "sum", "var"})


class _Counter(TorchDispatchMode):
    """Counts MACs, and elementwise operations within the inserted layers of `net` and between `start` and `stop`."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.operations = 0
        self._counting = False
        self._flops = FlopCounterMode(display=False)
        for layer in net.backbone.inserted.children():
            layer.register_forward_pre_hook(self.start)
            layer.register_forward_hook(self.stop)

    @property
    def macs(self) -> int:
        return self._flops.get_total_flops() // 2

    def start(self, *_: Any) -> None:
        self._counting = True

    def stop(self, *_: Any) -> None:
        self._counting = False

    def __enter__(self) -> Self:
        self._flops.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._flops.__exit__(*error)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        if self._counting and _is_arithmetic(operator):
            self.operations += max(each.numel() for each in (*args, result) if isinstance(each, Tensor))
        return result


def _is_arithmetic(operator: Any) -> bool:
    """Whether it computes each element of its result, or a sum or extreme of each element of what it is given."""
    name = operator.overloadpacket.__name__
    if name == "clone":  # which torch counts among the pointwise
        return False
    return name in _REDUCTIONS or torch.Tag.pointwise in operator.tags


def csv_text(table: Overheads) -> str:
    """The rows as CSV, to a millionth."""
    file = io.StringIO()
    rows = [_flat(row) for row in table.rows]
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return file.getvalue()


def json_text(table: Overheads) -> str:
    """The table as JSON."""
    data = {"title": table.title, "caption": table.caption, "rows": [_flat(row) for row in table.rows]}
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _flat(row: Overhead) -> dict[str, Any]:
    """A row with what was measured beside what was counted."""
    found = asdict(row)
    measured = found.pop("measured")
    return {**found, **(measured or {})}


def markdown(table: Overheads) -> str:
    """The table as GitHub's markdown, what papers print beside what was counted."""
    from tabulate import tabulate  # noqa: PLC0415 - it costs every command 50 ms

    headers = [*_HEADERS, *(_MEASURED_HEADERS if table.rows[0].measured else ())]
    alignment = ("left", "left", *["right"] * (len(headers) - 2))
    rows = [[*_shown(row), *_shown_measured(row.measured)] for row in table.rows]
    grid = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    notes = [f"- {row.backbone}, {row.method}: {row.note}" for row in table.rows if row.note]
    return "\n\n".join(filter(None, [f"# {table.title}", table.caption, grid, "\n".join(notes)])) + "\n"


_HEADERS = (
    *("Backbone", "Method", "Parameters", "MiB", "More, %", "reported: MiB", "more, %"),
    *("MACs", "Operations", "More, %", "reported: more, %", "MACs at inference", "Operations", "More, %"),
)
_MEASURED_HEADERS = ("Time of a step, ratio", "Memory", "Time of inference, ratio", "Memory")


def _shown(row: Overhead) -> list[str]:
    return [
        *(row.backbone, row.method),
        *(f"{row.params:,}", f"{row.params_mib:.2f}", f"{row.param_overhead_pct:.2f}"),
        *(row.reported_params_mib or "", row.reported_param_overhead_pct or ""),
        *(f"{row.macs:,}", f"{row.operations:,}", f"{row.compute_overhead_pct:.4f}"),
        row.reported_compute_overhead_pct or "",
        *(f"{row.inference_macs:,}", f"{row.inference_operations:,}", f"{row.inference_overhead_pct:.4f}"),
    ]


def _shown_measured(found: Measured | None) -> list[str]:
    if found is None:
        return []
    ratio = "{0:.3f} ({1:.3f} to {2:.3f})".format
    train = (found.train_time_ratio, found.train_time_ratio_min, found.train_time_ratio_max)
    inference = (found.inference_time_ratio, found.inference_time_ratio_min, found.inference_time_ratio_max)
    memory = [f"{each:.3f}" for each in (found.train_memory_ratio, found.inference_memory_ratio)]
    return [ratio(*train), memory[0], ratio(*inference), memory[1]]


FORMATS: Mapping[str, Callable[[Overheads], str]] = {"md": markdown, "csv": csv_text, "json": json_text}
