"""Special tokens that are written in a user's text, such as `<mask>` or `</s>`: there they are text like any other."""

import json
import re
from typing import Any

from tokenizers import Tokenizer


class LiteralTokenizer:
    """A copy of a tokenizer that reads special tokens as text, except where they are written under an alias.

    In the copy every special token has the same id and the same behavior, but another name that no text has.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self._backend = tokenizer.backend_tokenizer
        tokens = [token.content for token in self._backend.get_added_tokens_decoder().values() if token.special]
        # Characters of a private use area: no text has them in this order.
        self._aliases = {token: f"\ue0f0\ue0f1{i}\ue0f2" for i, token in enumerate(tokens)}
        longest_first = sorted(tokens, key=len, reverse=True)
        # A few tokens are looked for regardless of case; more texts than necessary do no harm.
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if tokens else None
        self._copy: Tokenizer | None = None

    def needed(self, text: str) -> bool:
        """Whether a special token is written in a text."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def alias(self, text: str) -> str:
        """The same text with the alias of each special token in it: text of a template, whose tokens are meant."""
        for token, alias in self._aliases.items():
            text = text.replace(token, alias)
        return text

    def encode(self, text: str, add_special_tokens: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the characters at which each begins and ends."""
        if self._copy is None:
            self._copy = self._renamed()
        encoding = self._copy.encode(text, add_special_tokens=add_special_tokens)
        return encoding.ids, encoding.offsets

    def _renamed(self) -> Tokenizer:
        content = json.loads(self._backend.to_str())
        for token in content["added_tokens"]:
            token["content"] = self._aliases.get(token["content"], token["content"])
        model = content["model"]
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, dict):
            model["vocab"] = {self._aliases.get(piece, piece): i for piece, i in vocabulary.items()}
        elif vocabulary is not None:  # Unigram: pieces with their scores
            model["vocab"] = [[self._aliases.get(piece, piece), score] for piece, score in vocabulary]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._aliases.get(model["unk_token"], model["unk_token"])
        copy = Tokenizer.from_str(json.dumps(content))
        copy.no_truncation()
        copy.no_padding()
        return copy
