"""From a graph to an ONNX file, and from that to answers.

What cannot be exported is named: the smallest module that fails by itself.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls.onnx.graph import Answers, Graph

__all__ = ["import_extra", "run", "session_of", "write_model"]

INPUT_NAME = "X"

# A file with more bytes keeps its weights in a second file: protobuf ends at 2 GiB.
LARGEST_FILE = 2**30
NUMPY = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def import_extra() -> None:
    """Raise an ImportError with the command to install, unless the extra is there."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"skvmdls.onnx needs {name}, which cannot be imported ({error}). "
                'Install the extra: pip install "skvmdls[onnx]"'
            ) from error


def write_model(graph: Graph, batch: int | str, path: Path) -> None:
    """Write a graph that takes (batch, *input_shape) to a file, without metadata."""
    n = 2 if isinstance(batch, str) else batch
    X = torch.zeros((n, *graph.input_shape), dtype=graph.precision.inputs)
    try:
        model = _traced(graph, X, is_dynamic=batch == "dynamic")
    except Exception as error:
        x = X.to(graph.precision.nets)
        raise ValueError(
            f"{_culprit(graph, x, batch)} cannot be exported to ONNX: {_told(error)}. "
            "Write it in operations that torch.export traces (no branches on values, "
            "no numpy), or take another net."
        ) from error
    for node in model.graph.all_nodes():
        # Lines of the source, with the paths of this machine.
        node.metadata_props.clear()
    import_module("onnx_ir").save(
        model,
        path,
        external_data=f"{path.name}.data" if _size(model) > LARGEST_FILE else None,
    )


def _size(model: Any) -> int:
    values = model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def _traced(module: nn.Module, X: Any, *, is_dynamic: bool) -> Any:
    """Trace a module on example inputs, and translate it: an ``onnx_ir.Model``."""
    arguments = X if isinstance(X, tuple) else (X,)
    shapes = None
    if is_dynamic:
        shapes = tuple({0: torch.export.Dim.AUTO} for _ in arguments)
    with warnings.catch_warnings(), torch.no_grad(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, arguments, dynamic_shapes=shapes, strict=False
        )
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAME] if isinstance(module, Graph) else None,
            output_names=[*Answers._fields] if isinstance(module, Graph) else None,
        )
    assert exported is not None
    return exported.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's loggers from telling of each decomposition."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _culprit(graph: Graph, x: Tensor, batch: int | str) -> str:
    """Name the smallest module that cannot be exported by itself, with its type."""
    nets: list[tuple[str, nn.Module, Tensor]] = []
    if graph.network is not None:
        nets.append(("backbone", graph.network.backbone, x))
    if graph.autoencoder is not None:
        nets.append(("autoencoder", graph.autoencoder, x))
    for role, net, given in nets:
        if not _is_exportable(net, (given,), batch):
            name, module = _smallest_failing(net, given, batch)
            where = f"{role}.{name}" if name else role
            return f"{where}, a {type(module).__name__},"
    return "The detector's graph"


def _smallest_failing(
    net: nn.Module, x: Tensor, batch: int | str
) -> tuple[str, nn.Module]:
    name, module = "", net
    inputs = _inputs_of_submodules(net, x)
    while True:
        prefix = f"{name}." if name else ""
        for child_name, child in module.named_children():
            full = prefix + child_name
            if full in inputs and not _is_exportable(child, inputs[full], batch):
                name, module = full, child
                break
        else:
            return name, module


def _inputs_of_submodules(net: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Record what each submodule is given in a forward pass, if tensors alone."""
    inputs: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            if given and all(isinstance(value, Tensor) for value in given):
                inputs[name] = given

        return hook

    handles = [
        module.register_forward_pre_hook(remember(name))
        for name, module in net.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), suppress(Exception):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def _is_exportable(
    module: nn.Module, inputs: tuple[Tensor, ...], batch: int | str
) -> bool:
    try:
        _traced(module, inputs, is_dynamic=batch == "dynamic")
    except Exception:
        return False
    return True


def _told(error: Exception) -> str:
    """Give the reason, without the pages that torch puts around it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {' '.join(lines[:2])[:300]}".rstrip(". ")


def session_of(path: str | os.PathLike[str]) -> Any:
    """Load a file into onnxruntime, on the CPU, in as many threads as torch has."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ValueError(f"{path} cannot be run by onnxruntime: {error}") from error


def run(session: Any, X: np.ndarray) -> Any:
    """Answer rows in batches: of the file's size, if it has one."""
    [given] = session.get_inputs()
    dtype = NUMPY.get(given.type, np.float64)
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None
    size = fixed or 64
    batches: list[list[Any]] = []
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        n = len(rows)
        if fixed is not None and n < size:
            rows = np.concatenate([rows, np.repeat(rows[-1:], size - n, axis=0)])
        with np.errstate(over="ignore"):
            feed = {given.name: np.ascontiguousarray(rows, dtype=dtype)}
        batches.append([answer[:n] for answer in session.run(Answers._fields, feed)])
    by_name: list[Any] = [np.concatenate(p) for p in zip(*batches, strict=True)]
    return Answers(*by_name)
