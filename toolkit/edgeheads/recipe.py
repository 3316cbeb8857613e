"""Recipes: what to build, as strict YAML. recipes/*.yaml holds one recipe per file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from edgeheads.compression.prune.pattern import parse_pattern, require_fitting
from edgeheads.compression.prune.target import parse_target
from edgeheads.compression.quantize.calibration import DEFAULT_CALIBRATION, get_calibration
from edgeheads.compression.quantize.schemes import SCHEMES, get_scheme
from edgeheads.errors import EdgeheadsError, MissingDependencyError, unknown_name
from edgeheads.resources import resource_dir

try:
    import yaml
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        StrictBool,
        StrictInt,
        StrictStr,
        ValidationError,
        field_validator,
        model_validator,
    )
except ImportError:
    raise MissingDependencyError("pydantic and pyyaml", "convert", "reading a recipe") from None

__all__ = ["PRECISIONS", "Recipe", "list_recipes", "load_recipe", "recipe_to_yaml"]

PRECISIONS = tuple(SCHEMES)


def _known_scheme(name: str) -> str:
    try:
        return get_scheme(name).name
    except EdgeheadsError as error:
        raise ValueError(str(error)) from None


Precision = Annotated[StrictStr, AfterValidator(_known_scheme)]


def _known_calibration(name: str) -> str:
    try:
        get_calibration(name)
    except EdgeheadsError as error:
        raise ValueError(str(error)) from None
    return name


Calibration = Annotated[StrictStr, AfterValidator(_known_calibration)]


def _plain_float(value: object) -> object:
    # PyYAML reads 1e-3, without a dot, as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _square(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


Real = Annotated[float, BeforeValidator(_plain_float)]
Side = Annotated[StrictInt, Field(ge=32, le=4096)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=_Section)


class BackboneSection(_Section):
    """The network that computes features; see `create_backbone`."""

    name: StrictStr = "mobilenet_v2"
    width: Real = 1.0
    levels: tuple[StrictStr, ...] | None = None
    weights: StrictStr | None = None


class HeadSection(_Section):
    """The head: a preset, and what differs from it."""

    preset: Literal["default", "efficient", "high_performance"] = "efficient"
    options: dict[StrictStr, Any] = {}


class DataSection(_Section):
    """The labelled images. `*_samples` count rendered scenes; a folder is used whole."""

    source: StrictStr = "synthetic"
    format: StrictStr = "auto"
    strict: StrictBool = False
    keypoint_crops: StrictBool = False
    train_samples: Annotated[StrictInt, Field(ge=1)] = 512
    test_samples: Annotated[StrictInt, Field(ge=1)] = 64
    split: Literal["tail", "hash"] = "tail"
    test_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    depth_unit: Annotated[Real, Field(gt=0)] = 0.001


class TrainingSection(_Section):
    """How the model is trained."""

    steps: Annotated[StrictInt, Field(ge=1)] = 400
    batch_size: Annotated[StrictInt, Field(ge=1)] = 16
    learning_rate: Annotated[Real, Field(gt=0)] = 2e-3
    weight_decay: Annotated[Real, Field(ge=0)] = 1e-4
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.1
    augment: StrictBool = True
    frozen_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    backbone_rate: Annotated[Real, Field(gt=0)] = 1.0
    clip_norm: Annotated[Real, Field(ge=0)] = 0.0
    ema_decay: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    recompute: StrictBool = False
    validation_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    validations: Annotated[StrictInt, Field(ge=1)] = 10
    patience: Annotated[StrictInt, Field(ge=0)] = 0
    task_weights: dict[StrictStr, Annotated[Real, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _patience_sees(self) -> TrainingSection:
        if self.patience and not self.validation_fraction:
            raise ValueError(
                "patience waits for better validations: set validation_fraction above 0, "
                "or patience to 0"
            )
        return self


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Hand the library's own errors to pydantic, which adds where in the recipe they arose."""
    try:
        yield
    except EdgeheadsError as error:
        raise ValueError(str(error)) from None


class PruneSection(_Section):
    """What is removed from a trained model, and how it recovers; compression/README.md."""

    target: StrictStr | None = None
    importance: Literal["l1", "l2", "bn_scale", "taylor"] = "taylor"
    normalization: Literal["mean", "max", "l2", "none"] = "mean"
    scope: Literal["global", "layer"] = "global"
    multiple: Annotated[StrictInt, Field(ge=1)] = 8
    min_fraction: Annotated[Real, Field(gt=0, le=1)] = 0.1
    precision: Precision = "float32"
    gradient_batches: Annotated[StrictInt, Field(ge=1)] = 8
    rounds: Annotated[StrictInt, Field(ge=1)] = 1
    recover_steps: Annotated[StrictInt, Field(ge=1)] = 200
    recover_rate: Annotated[Real, Field(gt=0)] = 0.5
    distill: Annotated[Real, Field(ge=0)] = 1.0
    sparsity: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    pattern: StrictStr = "unstructured"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PruneSection:
        """Return the section of a model that has no recipe around it.

        Raises:
            EdgeheadsError: a value that its field does not take.
        """
        return _parse(cls, values, "pruning")

    @field_validator("target")
    @classmethod
    def _target_is_one(cls, target: str | None) -> str | None:
        if target is not None:
            with _as_value_error():
                parse_target(target)
        return target

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, pattern: str) -> str:
        with _as_value_error():
            parse_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _pattern_has_the_zeros(self) -> PruneSection:
        with _as_value_error():
            require_fitting(parse_pattern(self.pattern), self.sparsity)
        return self


class QuantizeAwareSection(_Section):
    """Fine-tuning with the rounding of int8; compression/README.md."""

    steps: Annotated[StrictInt, Field(ge=0)] = 0
    rate: Annotated[Real, Field(gt=0)] = 0.1
    observer: Literal["learned", "moving_average", "fixed"] = "learned"


class ExportSection(_Section):
    """Which files are made, and how they are calibrated."""

    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("float32", "int8")
    calibration_samples: Annotated[StrictInt, Field(ge=1)] = 128
    calibration: Calibration = DEFAULT_CALIBRATION
    max_drop: Annotated[Real, Field(ge=0)] | None = None
    fast_for: Literal["any", "xnnpack", "xnnpack-amx"] = "any"

    @model_validator(mode="after")
    def _no_twins(self) -> ExportSection:
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError("names a precision twice")
        return self


class Recipe(_Section):
    """Everything that determines a model and its files. The same recipe gives the same files.

    recipes/README.md has the table of fields and the grammar of recipe names.
    """

    schema_version: Literal[1] = 1
    name: StrictStr
    task: StrictStr
    input_size: Annotated[tuple[Side, Side], BeforeValidator(_square)]
    backbone: BackboneSection = BackboneSection()
    head: HeadSection = HeadSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    prune: PruneSection = PruneSection()
    quantize_aware: QuantizeAwareSection = QuantizeAwareSection()
    export: ExportSection = ExportSection()
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0

    def with_values(self, **changes: Any) -> Recipe:
        """Return a recipe in which dotted fields have other values: `with_values(**{"seed": 1})`.

        Raises:
            EdgeheadsError: a value that the field does not take.
        """
        content = self.model_dump(mode="json")
        for dotted, value in changes.items():
            *sections, field = dotted.split(".")
            target = content
            for section in sections:
                target = target[section]
            target[field] = value
        return _parse(Recipe, content, f"recipe {self.name}")

    def values(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.model_dump(mode="json")


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with edgeheads."""
    return sorted(path.stem for path in resource_dir("recipes").glob("*.yaml"))


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Read a recipe by its name, or from a YAML file.

    Raises:
        EdgeheadsError: no such recipe; text that is no YAML; a key that is unknown or a value that
            its field does not take. The text names the file and the dotted field.
    """
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = resource_dir("recipes") / f"{name_or_file}.yaml"
        if not path.is_file():
            raise unknown_name("recipe", str(name_or_file), list_recipes())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgeheadsError(
            f"recipe {path} does not exist; the ones that ship are: {', '.join(list_recipes())}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise EdgeheadsError(
            f"recipe {path} cannot be read ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(content, dict):
        raise EdgeheadsError(
            f"recipe {path} must be a mapping of fields to values, received {content!r:.60}"
        )
    return _parse(Recipe, {"name": path.stem, **content}, f"recipe {path}")


def recipe_to_yaml(recipe: Recipe) -> str:
    """Return the recipe with every field, as YAML that `load_recipe` reads back to an equal one."""
    text: str = yaml.safe_dump(recipe.values(), sort_keys=False, allow_unicode=True)
    return text


def _parse(kind: type[S], content: Mapping[str, Any], where: str) -> S:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        dotted = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            problem = f"unknown field {dotted!r}{_hint(kind, first['loc'])}"
        elif first["type"] == "missing":
            problem = f"field {dotted!r} is missing"
        else:
            message = first["msg"].removeprefix("Value error, ")
            # A rule of several fields has no place of its own.
            place = f"{dotted}: " if dotted else ""
            received = "" if "received" in message else f", received {first['input']!r}"
            problem = f"{place}{message[0].lower()}{message[1:]}{received}"
        raise EdgeheadsError(f"{where}: {problem}{more}") from None


def _hint(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    section = kind
    for part in location[:-1]:
        section = type(getattr(kind.model_construct(), str(part)))
    known = sorted(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"
