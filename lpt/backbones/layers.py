"""Which layer is k: the one place where it is chosen and checked; without torch."""

from lpt.errors import LptError


def middle_layer(num_layers: int) -> int:
    """The paper's prompt layer, L // 2 + 1: 13 of 24, 19 of 36, 16 of 30."""
    return num_layers // 2 + 1


def resolve_layer(layer: int | None, default: int, num_layers: int, name: str) -> int:
    """k, 1..L.

    Args:
        layer: as the user gave it; None leaves the choice to the method.
        default: the method's own choice.
        num_layers: L.
        name: of the backbone, for the error.

    Raises:
        LptError: `layer` is not one of 1..L.
    """
    if layer is None:
        return default
    if not 1 <= layer <= num_layers:
        raise LptError(
            f"lpt.layer={layer} does not exist: {name} has L={num_layers} layers; choose 1..{num_layers} "
            f"(1 is the input, the default is {default})"
        )
    return layer
