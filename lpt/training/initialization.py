"""Where a prompt starts from: values that the frozen model knows, instead of small random numbers.

Shapes: P prompt length, T tokens, H hidden size, V vocabulary.
"""

import torch
from torch import Tensor

from lpt.classifier import LatePromptClassifier
from lpt.data.batches import EncodedSplit
from lpt.errors import LptError
from lpt.generators import PromptGenerator


def start_prompt(classifier: LatePromptClassifier, init: str, split: EncodedSplit, seed: int) -> None:
    """Have the prompt start as `generator.init` says.

    Args:
        classifier: its method has a generator that can start from given prompt tokens.
        init: `default`, which changes nothing; `states`, those of random tokens of random texts; or `vocabulary`,
            the embeddings of random words.
        split: the training texts.
        seed: of the random choice.

    Raises:
        LptError: `vocabulary`, with embeddings of another size than the states.
    """
    if init == "default":
        return
    generator = classifier.method.generator
    assert isinstance(generator, PromptGenerator)
    random = torch.Generator().manual_seed(seed)
    source = random_embeddings if init == "vocabulary" else random_states
    generator.start_from(source(classifier, split, generator.prompt_length, random))


def random_states(classifier: LatePromptClassifier, split: EncodedSplit, count: int, random: torch.Generator) -> Tensor:
    """States entering layer k, `[count, H]`, each of a random token of a random text.

    Never of a first token, unless it is the only one: in decoders its state may be a hundred times as large as others.
    """
    states = []
    for text in torch.randint(len(split), (count,), generator=random).tolist():
        batch = split.collate([(text, 1.0)], classifier.pad_id).to(classifier.method.backbone.model.device)
        h_TH = classifier.method.trunk(batch.input_ids, batch.attention_mask)[0]
        states.append(h_TH[torch.randint(min(1, len(h_TH) - 1), len(h_TH), (), generator=random)])
    return torch.stack(states)


def random_embeddings(
    classifier: LatePromptClassifier, split: EncodedSplit, count: int, random: torch.Generator
) -> Tensor:
    """Embeddings of random words of the vocabulary, `[count, H]`; the texts of `split` do not matter.

    Raises:
        LptError: the backbone's embeddings have another size than its states.
    """
    backbone = classifier.method.backbone
    embedding_VH: Tensor = backbone.model.get_input_embeddings().weight
    if embedding_VH.shape[1] != backbone.hidden_size:
        raise LptError(
            f"generator.init=vocabulary: {backbone.name} has embeddings of {embedding_VH.shape[1]}, and a prompt of "
            f"H={backbone.hidden_size} cannot start from them; use generator.init=states"
        )
    words_P = torch.randint(len(embedding_VH), (count,), generator=random)
    return embedding_VH[words_P.to(embedding_VH.device)]
