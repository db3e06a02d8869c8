import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision

from lpt.backbones.placement import Placement
from lpt.config.schema import Config, MethodConfig, TrainerConfig
from lpt.training.placement import place
from lpt.training.trainer import precision_plugin

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("placement", "kind", "precision"),
    [
        (Placement("cpu", F32, F32), Precision, "32-true"),
        (Placement("cpu", BF16, BF16), Precision, "32-true"),  # the backbone has its format already
        (Placement("cpu", F32, BF16), MixedPrecision, "bf16-mixed"),
        (Placement("gpu", F16, F16), MixedPrecision, "16-mixed"),  # takes loss scaling
    ],
)
def test_lightning_touches_number_formats_only_where_weights_and_products_differ(placement, kind, precision):
    plugin = precision_plugin(placement)
    assert type(plugin) is kind
    assert plugin.precision == precision


@pytest.mark.parametrize(
    ("method", "precision", "weights", "computed"),
    [("lpt", "32", F32, F32), ("lpt", "bf16", BF16, BF16), ("full", "auto", F32, F32), ("full", "bf16", F32, BF16)],
)
def test_weights_that_are_trained_are_float32_whatever_they_are_computed_in(method, precision, weights, computed):
    config = Config(method=MethodConfig(name=method), trainer=TrainerConfig(accelerator="cpu", precision=precision))
    assert place(config) == Placement("cpu", weights, computed)
