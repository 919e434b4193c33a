"""The weights of a text encoder out of its exported graph, so that also a tuned one can be cut and healed without its training folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from tastemaker.compression.calibration import Feed
from tastemaker.compression.step import NotApplicable
from tastemaker.models.bert import Bert, from_weights

_PREFIX = "backbone."
_CLOSE = 1e-3


def bert_of(graph: Path, pooling: str, feed: Feed, wanted: np.ndarray) -> Bert:
    """The model behind a graph; that it is the same one is shown on real inputs.

    Args:
        graph: as `training.export` wrote it.
        pooling: of its answers.
        feed, wanted: inputs, and what the graph answers to them.

    Raises:
        NotApplicable: the graph is int8 already, or no BERT whose answers this model can give.
    """
    model = onnx.load(str(graph))
    weights = named_weights(model)
    epsilon = next(
        (
            float(one.f)
            for node in model.graph.node
            if node.op_type == "LayerNormalization"
            for one in node.attribute
            if one.name == "epsilon"
        ),
        1e-12,
    )
    inputs = [torch.from_numpy(np.asarray(feed[name])) for name in ("input_ids", "attention_mask")]
    try:
        hidden = weights["embeddings.word_embeddings.weight"].shape[1]
        for heads in sorted({hidden // dim for dim in (64, 32, 128, 48, 80, 96, 16) if hidden % dim == 0}):
            found = from_weights(weights, heads, pooling, epsilon)
            with torch.inference_mode():
                if np.abs(found(*inputs).numpy() - wanted).max() < _CLOSE:
                    return found
    except (KeyError, RuntimeError) as error:
        raise NotApplicable(
            f"only language models of the BERT family in float can be cut, and this graph has no {str(error)[:80]}; its int8 form is tried all the same"
        ) from None
    raise NotApplicable(
        "the language model is of the BERT family but answers otherwise (other pooling, or a head behind it), so it is not cut"
    )


def named_weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Weights by their names in the Hugging Face model; those of products, which the exporter turns and renames, are known by the bias behind them."""
    constants = {one.name: one for one in model.graph.initializer}
    found = {
        name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(one).copy())
        for name, one in constants.items()
        if name.startswith(_PREFIX) and one.data_type == onnx.TensorProto.FLOAT
    }
    behind = {node.input[place]: node.input[1 - place] for node in model.graph.node if node.op_type == "Add" for place in (0, 1)}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            continue
        bias = behind.get(node.output[0], "")
        if bias.startswith(_PREFIX) and bias.endswith(".bias"):
            table = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
            found[f"{bias.removeprefix(_PREFIX).removesuffix('.bias')}.weight"] = torch.from_numpy(np.ascontiguousarray(table.T))
    return found
