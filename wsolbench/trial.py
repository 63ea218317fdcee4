"""A trial: the frozen specification of everything that decides a result; the hash of it is its name."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt
from pydantic import AfterValidator, ValidationError
from pydantic.dataclasses import dataclass

from wsolbench import extract
from wsolbench.errors import InputError, Problem, nearest
from wsolbench.plugins import OPTIONS, Count, NotNegative, Positive, explain, frozen

_WEIGHTS = re.compile("none|imagenet|[0-9a-f]{64}")


def _known_weights(weights: str) -> str:
    if not _WEIGHTS.fullmatch(weights):
        raise ValueError(f"weights must be none, imagenet or the sha256 of a file, not {weights!r}")
    return weights


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Trial:
    """A trial is identified by its content: equal trials have equal ids on every machine.

    Every field is given; what a user leaves out comes from the recipe before there is a trial.
    """

    dataset: str  # its name; `wsolbench list datasets`
    backbone: str  # its name; `wsolbench list backbones`
    method: str  # its name; `wsolbench list methods`
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    method_options: Mapping[str, Any] = field(default_factory=dict)
    weights: Annotated[str, AfterValidator(_known_weights)]  # `none`, `imagenet`, or the sha256 of a file
    seed: Annotated[int, Ge(0)]  # of everything that is drawn: new weights, batches, the method's choices
    epochs: Annotated[int, Ge(0)]  # 0 evaluates the network as it is
    batch_size: Count  # images of a training step
    image_size: Count  # side of the network's input, pixels
    lr: Positive  # of the pretrained layers
    head_lr: Positive  # of the new layers
    lr_steps: tuple[Count, ...]  # after so many epochs the rates are multiplied by lr_factor
    lr_factor: Positive  # of both learning rates, at each of lr_steps
    momentum: Annotated[float, Ge(0), Lt(1)]  # of SGD
    weight_decay: NotNegative  # of SGD
    held_out: Annotated[float, Ge(0), Lt(1)]  # share of each class's training images; 0: the data set's own, if any
    precision: Literal["fp32", "bf16"]  # fp32 or bf16, of training; evaluation is always fp32
    extract: Annotated[str, AfterValidator(extract.known)]  # how score maps are read off: a name of extract.yaml
    threads: Annotated[int, Ge(1), Le(1024)]  # of the CPU; the last digits of a sum depend on it
    compile: bool = False  # train on compiled kernels: other last digits, other draws by adl on a GPU; in the id if on

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits; the name of the trial's folder under results/."""
        return id_of(self._fields())

    def __hash__(self) -> int:
        return hash(self.id)

    def spec(self) -> dict[str, Any]:
        """All fields as plain data."""
        return json.loads(json.dumps(self._fields(), allow_nan=False))

    def _fields(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in (*FIELDS, *OPTION_GROUPS)}
        return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}

    def row(self) -> dict[str, Any]:
        """All fields and options side by side, as reports and filters name them."""
        return flat(self.spec())


def words(spec: Mapping[str, Any]) -> str:
    """A trial's specification in a line, for people: what it is of and what its method was told."""
    names = [str(spec.get(key, "?")) for key in ("dataset", "backbone", "method")]
    options = [f"{key}={value}" for key, value in spec.get("method_options", {}).items() if key != "points"]
    return " ".join([*names, *options, f"seed={spec.get('seed', '?')}"])


OPTION_GROUPS = ("dataset_options", "backbone_options", "method_options")
_STAGES = re.compile(r"stages(?:\[(-?[0-9]+)?:(-?[0-9]+)?\])?")
LATER = {"compile": False}
"""Fields newer than the ids in use, with what all trials before had: of that value a specification is silent."""

FIELDS = tuple(f.name for f in fields(Trial) if f.name not in OPTION_GROUPS)


def canonical(data: Any) -> bytes:
    """The one JSON text of plain data, whatever the order of its keys."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def id_of(spec: Mapping[str, Any]) -> str:
    """The id of the trial of this specification."""
    return hashlib.sha256(canonical(spec)).hexdigest()[:12]


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's specification with its options beside its fields."""
    row = {**LATER, **spec}
    for group in OPTION_GROUPS:
        row |= row.pop(group, {})
    return row


def expand_stages(value: Any, stages: Sequence[str]) -> Any:
    """`stages` or a slice of it, such as `stages[-3:]`, as the list of points; any other value as it is."""
    match = _STAGES.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    start, stop = (int(bound) if bound else None for bound in match.groups())
    return tuple(stages[start:stop])


def from_spec(spec: Mapping[str, Any]) -> Trial:
    """The trial that `Trial.spec` described; `InputError` lists everything wrong with it."""
    try:
        return Trial(**{key: _thawed(value) for key, value in spec.items()})
    except ValidationError as error:
        raise InputError(*explain(error, "a trial has no field {}")) from None


def wrong_fields(settings: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those fields of a trial that are given, where others are missing."""
    try:
        from_spec({key: value for key, value in settings.items() if key in FIELDS})
    except InputError as error:
        return [each for each in error.problems if isinstance(each, Problem) and each.key in settings]
    return []


def _thawed(value: Any) -> Any:
    return {key: frozen(item) for key, item in value.items()} if isinstance(value, dict) else frozen(value)


def unknown_keys(keys: Iterable[str], known: Iterable[str]) -> list[Problem]:
    """A sentence for each key that is not known."""
    names = list(known)
    unknown = [key for key in keys if key not in names]
    there = ", ".join(names)
    return [
        Problem(f"no field or option {key!r}{nearest(key, names) or '.'} There are: {there}", key) for key in unknown
    ]
