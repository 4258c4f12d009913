"""An answer of a fitted model as an ONNX graph of a few operations."""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from upo.core.files import atomic_file
from upo.errors import InputError
from upo.fitted.export import SCALE, Scale, arrays_of, written
from upo.models.estimator import Estimator

OPSET = 18  # reductions take their axes as inputs
FORMAT = 10  # of the file, which runtimes of 2024 read


def to_onnx(
    path: str | Path, estimator: Estimator, *, of: str, name: str, scale: Scale | None = None
) -> Path:
    """Write an answer as an ONNX graph; arguments as in ``Fitted.to_onnx``."""
    try:
        onnx = import_module("onnx")
        helper, numpy_helper = import_module("onnx.helper"), import_module("onnx.numpy_helper")
    except ImportError as error:
        raise InputError("to_onnx needs the package onnx; install it: pip install onnx.") from error
    answer = written(estimator, of)
    if answer.calibration is not None:
        raise InputError(
            "A calibrated propensity has no ONNX graph here; use export, which writes its map, too."
        )
    arrays = {
        key.removeprefix(f"{of}_"): value.astype(np.float32) for key, value in arrays_of(answer, of)
    }
    nodes: list[Any] = []

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    sides = [node("Gather", side, f"{side}_index", axis=1) for side in ("user", "item")]
    arrays |= {"last": np.array([-1]), "first": np.array([0])}
    if answer.form == "bilinear":
        z = node("ReduceSum", node("Mul", *sides), "last", keepdims=0)
        for side in ("user", "item"):
            z = node("Add", z, node("Gather", f"{side}_bias", f"{side}_index", axis=1))
    else:
        z = node("Concat", *sides, axis=-1)
        for number in range(len(answer.plain.layers)):
            z = node("Relu", z) if number else z
            z = node("MatMul", z, f"layer{number}_weight")
            z = node("Add", z, f"layer{number}_bias")
        z = node("Squeeze", z, "last")
    if of == "prediction" and scale is not None:
        arrays |= {key: np.asarray(x, np.float32) for key, x in zip(SCALE, scale, strict=True)}
        z = node("Add", node("Mul", z, "spread"), "centre")
        value = node("Clip", z, "low", "high")
    else:
        value = node("Sigmoid", z)
    mean = node("ReduceMean", value, "first", keepdims=0)
    nodes.append(helper.make_node("Identity", [mean], [of]))
    tensor = onnx.TensorProto
    graph = helper.make_graph(
        nodes,
        "upo",
        [
            helper.make_tensor_value_info(f"{side}_index", tensor.INT64, ["pairs"])
            for side in ("user", "item")
        ],
        [helper.make_tensor_value_info(of, tensor.FLOAT, ["pairs"])],
        [numpy_helper.from_array(value, key) for key, value in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="upo"
    )
    model.ir_version = FORMAT
    helper.set_model_props(model, {"estimator": name, "upo": version("upo")})
    onnx.checker.check_model(model)
    place = Path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as file:
            file.write(model.SerializeToString())
    except OSError as error:
        raise InputError(f"{place} cannot be written ({error.strerror or error}).") from error
    return place
