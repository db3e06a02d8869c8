"""One loaded backbone for several methods, each of which changes its modules in its own way."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lpt.backbones.pretrained import Pretrained


@dataclass(frozen=True)
class SharedPretrained(Pretrained):
    """A backbone that is loaded once: every `load_model` gives modules of its own over the same tensors.

    What a method adds or wraps is its own; of what it trains of the backbone's weights, `separate` makes a copy.

    Attributes:
        loaded: what has been loaded, by what was asked for.
    """

    loaded: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, pretrained: Pretrained) -> "SharedPretrained":
        """The same backbone, to be shared."""
        return cls(pretrained.path, pretrained.location, pretrained.commit, pretrained.config)

    def load_tokenizer(self) -> Any:
        """As `Pretrained.load_tokenizer`."""
        if "tokenizer" not in self.loaded:
            self.loaded["tokenizer"] = super().load_tokenizer()
        return self.loaded["tokenizer"]

    def fingerprint(self) -> str:
        """As `Pretrained.fingerprint`."""
        if "fingerprint" not in self.loaded:
            self.loaded["fingerprint"] = super().fingerprint()
        return str(self.loaded["fingerprint"])

    def load_model(self, dtype: torch.dtype, quantization: str | None = None, accelerator: str = "cpu") -> Any:
        """As `Pretrained.load_model`: other modules at every call, over the same tensors, with the same config."""
        if (dtype, quantization) not in self.loaded:
            self.loaded[dtype, quantization] = super().load_model(dtype, quantization, accelerator)
        model = self.loaded[dtype, quantization]
        shared = {id(x): x for x in (*model.parameters(), *model.buffers(), model.config)}
        return copy.deepcopy(model, shared)

    def separate(self, model: nn.Module) -> None:
        """Give a model of `load_model` tensors of its own where a method trains those that are shared."""
        shared = {id(p) for one in self.loaded.values() if isinstance(one, nn.Module) for p in one.parameters()}
        own: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.requires_grad and id(parameter) in shared:  # tied ones stay tied
                    if id(parameter) not in own:
                        own[id(parameter)] = nn.Parameter(parameter.detach().clone())
                    setattr(module, name, own[id(parameter)])
        for one in self.loaded.values():
            if isinstance(one, nn.Module):
                one.requires_grad_(False)
