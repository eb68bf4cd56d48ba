"""From a TOML file to a validated table: overrides, and pydantic's findings as one message with key and line."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mfpde.case import schema
from mfpde.case.alone import StandAloneCase, root_of, stands_alone, union_at
from mfpde.case.errors import CaseError, Key, key_name, line_of, nearest, shown
from mfpde.case.tables import LEAST, NO_CONTROL

_LARGEST_FILE = 5_000_000
_DEEPEST_KEY = 50
_STUDY = "study"
_NAME = "[key]"


@dataclass(frozen=True, eq=False)
class CaseFile:
    """A validated case: where it came from, its text, the overrides and the table."""

    path: Path
    text: str
    overrides: tuple[str, ...]
    table: schema.CaseTable

    @property
    def labels(self) -> list[str]:
        """The label of each solver, in order."""
        return [solver.label or solver.kind for solver in self.table.solver]


@dataclass(frozen=True, eq=False)
class StudyCase:
    """A validated case that is a study alone: where it came from, its text, the overrides and the table."""

    path: Path
    text: str
    overrides: tuple[str, ...]
    table: StandAloneCase


_MOST_PROBLEMS = 10
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
_LENGTHS = {
    "too_short": "must have at least {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
}


class InputError(ValueError):
    """Wrong input: one finished message for each of its ``problems``, of which there is at least one."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_case(path: Path | str, overrides: tuple[str, ...] = ()) -> CaseFile:
    """Read and validate a case file. Raises InputError with a message for each problem: file, line, key, value, accepted values."""
    path = Path(path)
    return parse_case(path, _read(path), overrides)


def load_study(path: Path | str, overrides: tuple[str, ...] = ()) -> CaseFile | StudyCase:
    """Read and validate a case of either sort, one that is a study alone too. Raises InputError as ``load_case`` does."""
    path = Path(path)
    text = _read(path)
    data = _data(path, text, overrides)
    if not stands_alone(data):
        return parse_case(path, text, overrides)
    try:
        return StudyCase(path, text, overrides, StandAloneCase.model_validate(data))
    except ValidationError as error:
        raise InputError(*_problems(error.errors(include_url=False), data, path, text)) from error


def parse_case(path: Path, text: str, overrides: tuple[str, ...] = ()) -> CaseFile:
    """The case with this text, which stands for the file at ``path``. Raises InputError as ``load_case`` does."""
    data = _data(path, text, overrides)
    try:
        if stands_alone(data):
            kind = shown(data["study"].get("kind", ""))
            raise CaseError(("study",), f"the case is a study alone ({kind}), with nothing to solve; `mfpde study {path}` carries it out")
        table = schema.CaseTable.model_validate(data)
        case = CaseFile(path, text, overrides, table)
        _check_labels(case)
    except CaseError as error:
        raise InputError(error.located(str(path), text)) from error
    except ValidationError as error:
        raise InputError(*_problems(error.errors(include_url=False), data, path, text)) from error
    return case


def _data(path: Path, text: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The plain data of a case file, with the overrides in them."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    try:
        for override in overrides:
            _override(data, override)
    except CaseError as error:
        raise InputError(error.located(str(path), text)) from error
    return data


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is not a regular file")
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: larger than {_LARGEST_FILE} bytes, which is no case file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file{_shipped_hint(path)}") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("#") and "=" in line and line.partition("=")[0].count(".") > _DEEPEST_KEY:
            raise InputError(f"{path}:{number}: a key of more than {_DEEPEST_KEY} parts")
    return text


def _shipped_hint(path: Path) -> str:
    from mfpde.shipped import is_shipped

    return f"; `mfpde cases {path.name}` copies the shipped case of this name here" if is_shipped(path.name) else ""


def _override(data: dict[str, Any], override: str) -> None:
    """Apply ``key.path=value``; a list element is named by its index or its label (or kind)."""
    name, equals, value = override.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(parts):
        raise CaseError((), f'--set needs key=value, e.g. solver.0.cells=[128], got "{override}"')
    place: Any = data
    for part in parts[:-1]:
        if isinstance(place, dict) and part not in place:
            place[part] = {}
        place = place[_index(place, part, override)]
    if not isinstance(place, dict | list):
        raise CaseError((), f'--set {override}: "{".".join(parts[:-1])}" is a value, not a table')
    place[_index(place, parts[-1], override)] = _toml_value(value.strip())


def _index(place: Any, part: str, override: str) -> Any:
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise CaseError((), f'--set {override}: nothing lies below a plain value at "{part}"')
    names = [item.get("label", item.get("kind")) if isinstance(item, dict) else None for item in place]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(place):
        return int(part)
    known = ", ".join([*(str(name) for name in names if name), *(str(k) for k in range(len(place)))][:12])
    raise CaseError((), f'--set {override}: "{part}" is none of the elements; name one of {known} before the key')


def _toml_value(text: str) -> Any:
    """A TOML value; what is not one is taken as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError, RecursionError):
        return text


def _problems(findings: list[Any], data: dict[str, Any], path: Path, text: str) -> list[str]:
    """The findings of pydantic as messages, by their lines, the first ones where there are many."""
    errors = [_merged(alike, data) for alike in _alike(findings, data)]
    errors.sort(key=lambda error: line_of(text, error.key) or 0)
    left = len(errors) - _MOST_PROBLEMS
    more = [f"{path}: and {left} more problem{'s' * (left > 1)}"] * (left > 0)
    return [*(error.located(str(path), text) for error in errors[:_MOST_PROBLEMS]), *more]


def _alike(findings: list[Any], data: dict[str, Any]) -> list[list[Any]]:
    """The findings in groups that are one problem each. A key that is missing because it is misspelt is no problem of its own."""
    unknown = [f["loc"] for f in findings if f["type"] == "extra_forbidden"]
    groups: dict[Any, list[Any]] = {}
    for finding in findings:
        if finding["type"] != "missing" or not any(_is_misspelt(finding["loc"], other) for other in unknown):
            groups.setdefault(_problem(finding, data), []).append(finding)
    return list(groups.values())


def _problem(finding: Any, data: dict[str, Any]) -> tuple[Any, ...]:
    """What a finding shares with others of the same problem: the table of missing keys, the list of wrong elements, the key of a value
    that could be of several types."""
    key, value = _resolve(finding["loc"], data, finding)
    if finding["type"] == "missing":
        return "missing", finding["loc"][:-1]
    if isinstance(value, dict) or not (key and isinstance(key[-1], int)):
        return "value", key
    while key and isinstance(key[-1], int):
        key = key[:-1]
    return "elements", key, finding["type"]


def _merged(alike: list[Any], data: dict[str, Any]) -> CaseError:
    """One error for findings that are one problem."""
    first = _translated(alike[0], data)
    if len(alike) == 1:
        return first
    if alike[0]["type"] == "missing":
        names = ", ".join(f"`{finding['loc'][-1]}`" for finding in alike)
        return CaseError(first.key, f"the keys {names} are missing")
    others = [_translated(finding, data) for finding in alike[1:]]
    if all(other.key == first.key for other in others):
        wanted = [str(error).partition(", got ")[0].removeprefix("must be ") for error in (first, *others)]
        return CaseError(first.key, f"must be {' or '.join(wanted)}, got {str(first).partition(', got ')[2]}")
    return CaseError(first.key, f"{first} (and {len(others)} more of the list)")


def _is_misspelt(missing: tuple[Any, ...], unknown: tuple[Any, ...]) -> bool:
    """Whether an unknown key beside a missing one is like it."""
    return missing[:-1] == unknown[:-1] and bool(nearest(str(unknown[-1]), [str(missing[-1])]))


def _translated(finding: Any, data: dict[str, Any]) -> CaseError:
    key, value = _resolve(finding["loc"], data, finding)
    return CaseError(key, _message(finding, value, data, key))


def _resolve(location: tuple[Any, ...], data: Any, finding: Any) -> tuple[Key, Any]:
    """The key in the file (pydantic's location without the names of the chosen kinds) and the value there."""
    key: Key = ()
    place: Any = data
    model: Any = root_of(data)
    for part in location:
        chosen, model = _chosen(model, part), _below(model, part)
        if chosen:  # the name of a kind, which no key of a table is meant by
            continue
        inside = isinstance(place, dict) and part in place
        counted = isinstance(place, list) and isinstance(part, int) and part < len(place)
        if inside or counted:
            key, place = (*key, part), place[part]
    if finding["type"] == "missing":
        return key, None
    if location[-1:] == (_NAME,):
        return key, key[-1]
    if finding["type"] in ("union_tag_invalid", "union_tag_not_found") and isinstance(place, dict):
        name = finding["ctx"]["discriminator"].strip("'")
        return ((*key, name), place[name]) if name in place else (key, None)
    return key, place


def _message(finding: Any, value: Any, data: dict[str, Any], key: Key) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "missing":
        return f"the key `{finding['loc'][-1]}` is missing{_accepted_words(finding['loc'], data)}"
    if kind == "extra_forbidden":
        known = _keys_beside(finding["loc"], data)
        return f"unknown key; accepted here: {', '.join(known)}{nearest(str(key[-1]), known)}"
    if kind == "union_tag_not_found":
        return f"the key `{context['discriminator'].strip(chr(39))}` is missing; accepted: {_accepted_tags(key, data)}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return f"got {shown(value)}; accepted: {', '.join(tags)}{nearest(str(value), tags)}"
    if kind == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ", ").split(",")]
        return f"got {shown(value)}; accepted: {', '.join(choices)}{nearest(str(value), choices)}"
    if kind == "value_error":
        return str(context.get("error", finding["msg"]))
    if kind == "string_pattern_mismatch" and finding["ctx"]["pattern"] == NO_CONTROL:
        return f"got {shown(value)}; accepted: text without control characters"
    if kind == "string_pattern_mismatch":
        got = f"cannot be called {shown(value)}" if finding["loc"][-1] == _NAME else f"got {shown(value)}"
        return f"{got}; accepted: up to 64 letters, digits, _ and -, starting with a letter or digit"
    if kind in _LENGTHS:
        wanted = "must not be empty" if context.get("min_length") == 1 else _LENGTHS[kind].format(**context)
        return f"{wanted}, got {shown(value)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a table, got {shown(value)}"
    if context.get("ge") == LEAST and isinstance(value, int | float) and not value > 0.0:
        return f"must be positive, got {shown(value)}"
    for bound, words in _BOUNDS.items():
        if bound in context:
            return f"must be {words} {context[bound]:.12g}, got {shown(value)}"
    text = (
        finding["msg"]
        .replace("Input should be ", "must be ")
        .replace("a valid integer", "an integer")
        .replace("a valid ", "a ")
        .replace("dictionary", "table")
    )
    return f"{text}, got {shown(value)}"


def _accepted_tags(key: Key, data: dict[str, Any]) -> str:
    kinds: dict[str, Any] = {"energy": schema.Term, "solver": schema.SolverTable, "study": schema.StudyTable}
    union, name = (schema.Inputs, "law") if "inputs" in key else (kinds.get(str(key[0]), schema.Inputs), "kind")
    if stands_alone(data) and (own := union_at(str(key[-1]))) is not None:
        union = own
    members = get_args(get_args(union)[0])
    return ", ".join(get_args(member.model_fields[name].annotation)[0] for member in members)


def _accepted_words(location: tuple[Any, ...], data: dict[str, Any]) -> str:
    """The words that a missing key accepts, if it takes one of a list."""
    model = _table_at(location, data)
    field = model.model_fields.get(location[-1]) if model is not None else None
    words = get_args(field.annotation) if field is not None else ()
    return f"; accepted: {', '.join(words)}" if words and all(isinstance(word, str) for word in words) else ""


def _keys_beside(location: tuple[Any, ...], data: dict[str, Any]) -> list[str]:
    """The keys that the table accepts in which pydantic met an unknown one."""
    model = _table_at(location, data)
    return list(model.model_fields) if model is not None else []


def _table_at(location: tuple[Any, ...], data: dict[str, Any]) -> type[BaseModel] | None:
    """The model of the table in which pydantic met the key at ``location``."""
    model: Any = root_of(data)
    for part in location[:-1]:
        model = _below(model, part)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _below(annotation: Any, part: Any) -> Any:
    """The model that pydantic's location ``part`` leads to from a model or an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if part in annotation.model_fields:
            return _stripped(annotation.model_fields[part].annotation)
        return annotation
    if tagged := _chosen(annotation, part):
        return tagged[0]
    arguments = get_args(annotation)
    return _stripped(arguments[-1]) if arguments else annotation


def _chosen(annotation: Any, part: Any) -> list[Any]:
    """The model of a union that pydantic's location ``part`` is the name of; none where it is a key or an index."""
    arguments = get_args(annotation)
    tagged = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel) and part in _tags(a)]
    return tagged + [_stripped(a) for a in arguments if any(getattr(mark, "tag", None) == part for mark in getattr(a, "__metadata__", ()))]


def _stripped(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    if hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    return _stripped(arguments[0]) if type(None) in get_args(annotation) and len(arguments) == 1 else annotation


def _tags(model: type[BaseModel]) -> list[str]:
    fields = [model.model_fields[name] for name in ("kind", "law") if name in model.model_fields]
    return [tag for field in fields for tag in get_args(field.annotation)]


def _check_labels(case: CaseFile) -> None:
    seen: dict[str, int] = {}
    for number, label in enumerate(case.labels):
        if label.lower() == _STUDY:
            raise CaseError(("solver", number, "label"), f'"{label}" is taken by the table of `mfpde study`; accepted: any other label')
        if label.lower() in seen:
            raise CaseError(("solver", number), f'the label "{label}" is taken by solver {seen[label.lower()]}; give each its own `label`')
        seen[label.lower()] = number
    reference = case.table.compare.reference
    if reference is not None and reference not in case.labels:
        choices = ", ".join(case.labels)
        raise CaseError(("compare", "reference"), f'got "{reference}"; accepted: {choices}{nearest(reference, case.labels)}')


__all__ = ["CaseFile", "InputError", "StudyCase", "key_name", "load_case", "load_study", "parse_case"]
