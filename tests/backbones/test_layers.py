import pytest

from lpt.backbones.layers import middle_layer, resolve_layer
from lpt.errors import LptError


def test_the_middle_layer_is_the_papers():
    assert [middle_layer(layers) for layers in (24, 36, 30, 12)] == [13, 19, 16, 7]


def test_no_layer_is_the_methods_own_and_any_other_is_taken_as_it_is():
    assert resolve_layer(None, 13, 24, "tiny") == 13
    assert [resolve_layer(layer, 13, 24, "tiny") for layer in (1, 24)] == [1, 24]


@pytest.mark.parametrize("layer", [0, 25, -1])
def test_a_layer_that_does_not_exist_is_refused_with_backbone_and_l(layer):
    with pytest.raises(LptError) as caught:
        resolve_layer(layer, 13, 24, "tiny")
    assert str(caught.value) == (
        f"lpt.layer={layer} does not exist: tiny has L=24 layers; choose 1..24 (1 is the input, the default is 13)"
    )
