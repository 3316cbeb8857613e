"""Finding an interpreter, and loading a model into it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from edgeheads.ondevice.failure import MeasureError

__all__ = [
    "DELEGATES",
    "RUNTIMES",
    "LoadedModel",
    "Runtime",
    "choose_runtime",
    "is_memory_error",
    "load_model",
    "named_tensors",
    "out_of_memory",
    "require_fixed_shapes",
]

# In the order they are tried: distribution, import package, then where in the imported module the
# interpreter is found, and the folder of the choice of op kernels and of what loads delegates.
RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter", ""),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter", ""),
    ("tensorflow", "tensorflow", "lite.Interpreter", "lite.experimental."),
)

# Delegates that lie in a library of their own: its file, and how it gets there.
DELEGATES = {
    "edgetpu": (
        "libedgetpu.so.1",
        "install the Edge TPU runtime (Debian package libedgetpu1-std) and plug the device in",
    ),
    "gpu": (
        "libtensorflowlite_gpu_delegate.so",
        "put TensorFlow Lite's GPU delegate library on LD_LIBRARY_PATH",
    ),
}

# What a loader says when an address space is full: the dynamic linker's words, the errno of a
# refused mmap, and XNNPACK's, which packs the weights once more after it has accepted the graph.
_MEMORY_SIGNS = (
    "failed to map segment",
    "llocate memory",
    "bad_alloc",
    "error '12'",
    "failed to create XNNPACK runtime",
)


class Runtime(NamedTuple):
    """The interpreter that was chosen."""

    name: str
    version: str
    interpreter: Callable[..., Any]
    op_resolvers: Any
    load_delegate: Callable[..., Any] | None
    import_ms: float


class LoadedModel(NamedTuple):
    """An interpreter with its tensors allocated; `inputs` and `outputs` by their public names."""

    interpreter: Any
    signature: str | None
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    cold_start_ms: float


def choose_runtime(wanted: str) -> Runtime:
    """Import the first interpreter that is installed, or the one that was asked for."""
    reasons: dict[str, str] = {}
    broken = False
    for name, module_name, interpreter_path, folder in RUNTIMES:
        if wanted not in ("any", name):
            continue
        started = time.perf_counter()
        try:
            module = importlib.import_module(module_name)
            interpreter = _attribute(module, interpreter_path)
            resolvers = _attribute(module, f"{folder}OpResolverType")
        # A binary package can fail to load in any way: ImportError, AttributeError, SystemError.
        except Exception as error:
            if is_memory_error(error):
                raise out_of_memory(error) from None
            # A module that is missing further inside means that the package itself is there.
            missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(
                str(error.name)
            )
            broken = broken or not missing
            reasons[name] = "not installed" if missing else f"cannot be loaded ({error!r})"
            continue
        import_ms = (time.perf_counter() - started) * 1e3
        loader = getattr(_attribute(module, folder.rstrip(".")), "load_delegate", None)
        version = _version(name, module_name)
        return Runtime(name, version, interpreter, resolvers, loader, import_ms)
    tried = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
    package = RUNTIMES[0][0] if wanted == "any" else wanted
    raise MeasureError(
        "broken-interpreter" if broken else "no-interpreter",
        f"expected a TFLite interpreter for {sys.executable}, found none ({tried}); "
        f"run: pip install {package}",
    )


def _attribute(module: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        module = getattr(module, name)
    return module


def _version(distribution: str, module_name: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # installed under another name, such as a nightly build
        package = sys.modules[module_name.split(".")[0]]
        return str(getattr(package, "__version__", "unknown"))


def load_model(
    request: Mapping[str, Any], runtime: Runtime, content: bytes | None = None
) -> LoadedModel:
    """Return the request's model, or one given as bytes, ready to run."""
    arguments: dict[str, Any] = {"num_threads": request["threads"]}
    arguments.update(
        {"model_path": request["model"]} if content is None else {"model_content": content}
    )
    if request["delegate"] != "xnnpack":
        # With the default kernels, XNNPACK would take what another delegate leaves.
        arguments["experimental_op_resolver_type"] = (
            runtime.op_resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    started = time.perf_counter()
    if request["delegate"] in DELEGATES:
        arguments["experimental_delegates"] = [_load_delegate(request["delegate"], runtime)]
    try:
        interpreter = runtime.interpreter(**arguments)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, SystemError) as error:
        if is_memory_error(error):
            raise out_of_memory(error) from None
        raise _load_failure(error, runtime) from None
    cold_start_ms = (time.perf_counter() - started) * 1e3
    signature, inputs, outputs = named_tensors(interpreter)
    return LoadedModel(interpreter, signature, inputs, outputs, cold_start_ms)


def _load_delegate(name: str, runtime: Runtime) -> Any:
    library, advice = DELEGATES[name]
    try:
        if runtime.load_delegate is None:
            raise OSError(f"{runtime.name} {runtime.version} cannot load delegates")
        return runtime.load_delegate(library)
    except (OSError, ValueError, RuntimeError) as error:
        raise MeasureError(
            "no-delegate", f"expected the delegate {name} ({library}), received: {error}; {advice}"
        ) from None


def is_memory_error(error: Exception) -> bool:
    """Tell whether a library ran out of memory; they say so in many ways."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)


def out_of_memory(error: BaseException) -> MeasureError:
    """Return the error for a full memory."""
    return MeasureError(
        "out-of-memory",
        f"expected enough memory to load and run the model, received {error!r}; "
        "free some memory, or take a smaller model or input",
    )


def _load_failure(error: Exception, runtime: Runtime) -> MeasureError:
    text = str(error)
    who = f"{runtime.name} {runtime.version}"
    if isinstance(error, SystemError):
        return MeasureError(
            "broken-interpreter",
            f"expected {who} to work with numpy {np.__version__}, received: {text}; "
            'a runtime built for numpy 1 needs: pip install "numpy<2"',
        )
    if (
        "Didn't find op" in text
        or "op version" in text
        or "unresolved custom op" in text
        or "Select TensorFlow" in text
    ):
        return MeasureError(
            "unsupported-op",
            f"expected only operations that {who} has, received: {text}; install a newer runtime, "
            "or convert with the built-in operations only",
        )
    return MeasureError(
        "bad-model",
        f"expected a complete TFLite file, and {who} refused this one: {text}; "
        "compare its size and sha256 with the original, then copy or export it again",
    )


def named_tensors(interpreter: Any) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Return the signature's key, and the tensors' details by the names users know them by.

    The order of get_output_details() need not be the signature's, so names are never assigned by
    position. Without a signature the tensors' own names stand in.
    """
    signatures = list(interpreter.get_signature_list())
    if len(signatures) > 1:
        raise MeasureError(
            "bad-model",
            f"expected one signature at most, received {signatures}; export each to its own file",
        )
    if signatures:
        # The runner must not outlive this function: while it holds on to the native object,
        # invoke() refuses to run.
        runner = interpreter.get_signature_runner(signatures[0])
        return signatures[0], runner.get_input_details(), runner.get_output_details()
    named = []
    for tensors in (interpreter.get_input_details(), interpreter.get_output_details()):
        named.append({details["name"]: details for details in tensors})
        if len(named[-1]) < len(tensors):
            names = [details["name"] for details in tensors]
            raise MeasureError(
                "bad-model", f"expected tensors with different names, received {names}"
            )
    return None, named[0], named[1]


def require_fixed_shapes(model: LoadedModel) -> None:
    """Refuse a model whose inputs have no size of their own."""
    for name, details in model.inputs.items():
        shape = [int(size) for size in details["shape_signature"]]
        if min(shape[1:], default=1) < 0:
            raise MeasureError(
                "bad-model",
                f"expected fixed sizes, input {name!r} has {shape}; "
                "convert the model with a fixed input shape",
            )
