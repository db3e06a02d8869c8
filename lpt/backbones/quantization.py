"""A backbone's layers in 8 or 4 bits, and which library does it where.

Weights alone are quantized, and of the layers alone: embeddings and the LM head stay as they are. Gradients flow
through to what is trained, which stays float32.
"""

import logging
import re
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, TorchAoConfig

from lpt.errors import LptError


def loading_options(quantization: str | None, accelerator: str, dtype: torch.dtype, layers: str) -> dict[str, Any]:
    """Arguments for `from_pretrained`.

    Args:
        quantization: `int8`, `nf4`, or None.
        accelerator: `cpu` or `gpu`, where the model is going to be.
        dtype: in which it computes.
        layers: where the base model has its layers, as in `Family.layers`.

    Raises:
        LptError: not on this accelerator, or its library is not installed.
    """
    if quantization is None:
        return {}
    outside = [rf"(?!(?:\w+\.)?{re.escape(layers)}\.).*"]  # names of what is left as it is
    if accelerator == "gpu":
        _need("bitsandbytes", quantization, "a GPU")
        bits: dict[str, Any] = {"load_in_8bit": True}
        if quantization == "nf4":
            bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        device_map = {"": torch.cuda.current_device()}
        return {
            "quantization_config": BitsAndBytesConfig(llm_int8_skip_modules=outside, **bits),
            "device_map": device_map,
        }
    if quantization != "int8":
        raise LptError(f"backbone.quantization={quantization} needs a GPU; on a CPU use int8")
    _need("torchao", quantization, "a CPU")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it lists what of it is for GPUs
    from torchao.quantization import Int8WeightOnlyConfig

    return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=outside)}


def is_quantized(parameter: nn.Parameter) -> bool:
    """Whether a parameter is in fewer bits than it computes in."""
    return hasattr(parameter, "__tensor_flatten__") or not parameter.is_floating_point()


def _need(library: str, quantization: str, where: str) -> None:
    if find_spec(library) is None:
        raise LptError(
            f"backbone.quantization={quantization} on {where} is done by {library}, which is not installed: "
            "pip install 'lpt[quantization]'"
        )
