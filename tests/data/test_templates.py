from functools import cache

import places
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lpt.data.templates import Encoded, Template, answer_ids, check_template, label_word_ids, template_fields
from lpt.errors import LptError

TOKENIZERS = places.SHARED / "tokenizers"
ENCODER, DECODER = "{a} It was {mask} .", "{a} It was"
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
EMOJI = "😀 👩‍🚀👩‍🚀👩‍🚀 日本語の映画 naïve 😀😀😀"


def closed(tokenizer, start="<s>", end="</s>"):
    """Let a tokenizer put special tokens around a text; `""` for none."""
    around = [token for token in (start, end) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[token for token in (start, "$A", end) if token],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in around],
    )
    return tokenizer


@cache
def words(lstrip: bool = False) -> PreTrainedTokenizerFast:
    """Whole words, and `<s> ... </s>` around them; `lstrip`: the mask takes the space before it."""
    vocabulary = [*SPECIAL.values(), "<mask>", "It", "was", ".", "?", ",", ":", "great", "bad", *"abcdefghijklmnopqrst"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    mask = AddedToken("<mask>", lstrip=lstrip, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=closed(tokenizer), mask_token=mask, **SPECIAL)


@cache
def pieces() -> PreTrainedTokenizerFast:
    """Lower-cased word pieces without accents, BERT's way: letters, and `##` letters after them."""
    letters = "abcdefghijklmnopqrstuvwxyz.?,:<>{}/"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "was", "great", *letters, *(f"##{c}" for c in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=closed(tokenizer, "[CLS]", "[SEP]"),
        mask_token="[MASK]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@cache
def byte_pairs(mask: bool = False, end: str = "") -> PreTrainedTokenizerFast:
    """Bytes, GPT-2's way, with ` was` and ` great` merged; so an emoji is four tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("Ġ", "w"),
        ("Ġw", "a"),
        ("Ġwa", "s"),
        ("Ġ", "g"),
        ("Ġg", "r"),
        ("Ġgr", "e"),
        ("Ġgre", "a"),
        ("Ġgrea", "t"),
    ]
    tokens = [*SPECIAL.values(), "<mask>", *alphabet, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if end:
        tokenizer = closed(tokenizer, "", end)
    elif mask:
        tokenizer = closed(tokenizer)
    special = SPECIAL | {"mask_token": "<mask>"} if mask else SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@cache
def spaced() -> PreTrainedTokenizerFast:
    """SentencePiece's way, as Llama has it: a space of its own in front, spaces as `▁`, and a first token `<s>`."""
    merges = [("g", "r"), ("gr", "e"), ("gre", "a"), ("grea", "t"), ("▁", "great"), ("▁", "a")]
    vocabulary = [*SPECIAL.values(), "▁", *"abcdefghijklmnopqrstuvwxyzIT.", *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=closed(tokenizer, "<s>", ""), **SPECIAL)


@cache
def real(name: str):
    folder = TOKENIZERS / name
    if not folder.is_dir():
        pytest.skip(f"needs the {name} tokenizer in ../shared/tokenizers")
    return AutoTokenizer.from_pretrained(folder)


ENCODERS = pytest.mark.parametrize(
    "tokenizer",
    [words, lambda: words(lstrip=True), pieces, lambda: byte_pairs(mask=True), lambda: real("roberta")],
    ids=["words", "words-lstrip", "pieces", "byte_pairs", "roberta"],
)
DECODERS = pytest.mark.parametrize(
    "tokenizer",
    [byte_pairs, lambda: byte_pairs(end="</s>"), spaced, lambda: real("gpt2")],
    ids=["byte_pairs", "byte_pairs-closing", "spaced", "gpt2"],
)
ANY_TEXT = pytest.mark.parametrize(
    "text",
    [
        "a b c",
        "",
        "   ",
        " a \n\n b\t",
        "{a} {b} {mask} {} {{}} {0} {x!r:>9}",
        "%s %(a)s $a \\n",
        EMOJI,
        "a" * 300,
        "great!!! <great>",
        "a\u2028b\u0000c\ufeff",
    ],
    ids=["plain", "empty", "blank", "spaces", "braces", "formats", "emoji", "long word", "punctuation", "separators"],
)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


# Writing


@pytest.mark.parametrize(
    ("template", "causal", "sentences", "text", "answer"),
    [
        (ENCODER, False, ("a film",), "a film It was <mask> .", 14),
        ("{mask} : {a}", False, ("Who ?",), "<mask> : Who ?", 0),
        ("{a} ? {mask} , {b}", False, ("x", "y"), "x ? <mask> , y", 4),
        ("{b}{mask}{a}", False, ("x", "y"), "y<mask>x", 1),
        (DECODER, True, (" a film\n",), "a film It was", 13),
        ("{a} {b} They are", True, ("x ", " y"), "x y They are", 12),
        ("{{{a}}} in {{mask}} is {mask}", False, ("x",), "{x} in {mask} is <mask>", 17),
        (ENCODER, False, ("{mask} {b} {a}",), "{mask} {b} {a} It was <mask> .", 22),
        (ENCODER, False, ("",), " It was <mask> .", 8),
    ],
)
def test_sentences_stand_where_the_template_says(template, causal, sentences, text, answer):
    assert Template(words(), template, causal, 20).render(sentences) == (text, answer)


# Where the answer is read


@ENCODERS
@ANY_TEXT
@pytest.mark.parametrize("template", [ENCODER, "{mask} : {a}", "{a}{mask}{a}"])
def test_an_encoder_is_read_at_the_templates_mask(tokenizer, text, template):
    tokenizer = tokenizer()
    (row,) = Template(tokenizer, template, False, 2000).encode([(text,)])
    written = template.replace("{mask}", tokenizer.mask_token).replace("{a}", text.strip())
    assert row.input_ids == ids_of(tokenizer, written)
    assert [i for i, token in enumerate(row.input_ids) if token == tokenizer.mask_token_id] == [row.readout_position]
    assert not row.truncated


@ENCODERS
@pytest.mark.parametrize(
    "template", ["{a} It was {mask} .", "{mask} : {a}", "{a}{mask}", "{a} {mask} {b}", "{b}{mask}{a}"]
)
def test_special_tokens_in_an_encoders_text_are_text(tokenizer, template):
    tokenizer = tokenizer()
    mask, special = tokenizer.mask_token, set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    template = Template(tokenizer, template, False, 200)
    sentences = (f"{mask} a {mask} {' a '.join(tokenizer.all_special_tokens)}", f"{mask}{mask}")[: 1 + template.pair]
    rows = template.encode([sentences, tuple("a" for _ in sentences)])
    with_special, without = ([token for token in row.input_ids if token in special] for row in rows)
    assert with_special == without
    assert rows[0].input_ids[rows[0].readout_position] == tokenizer.mask_token_id


@DECODERS
def test_special_tokens_in_a_decoders_text_are_text(tokenizer):
    tokenizer = tokenizer()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    text = f"b {' a '.join(tokenizer.all_special_tokens)}"
    with_special, without = Template(tokenizer, "a {a}", True, 100).encode([(text,), ("b",)])
    assert [i for i in with_special.input_ids if i in special] == [i for i in without.input_ids if i in special]
    assert with_special.readout_position == len(with_special.input_ids) - 1
    expected = tokenizer(f"a {text}", split_special_tokens=True)["input_ids"]
    assert with_special.input_ids == expected[: len(with_special.input_ids)]


def test_special_tokens_of_the_template_itself_are_meant():
    tokenizer = byte_pairs()
    rows = Template(tokenizer, "<s> {a} </s> was", True, 100).encode([("b </s> <pad>",), ("b",)])
    start, end, pad = tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>"])
    for row in rows:
        assert (row.input_ids[0], row.input_ids.count(end), row.input_ids.count(pad)) == (start, 1, 0)


def test_unigram_pieces_that_look_like_special_tokens_are_not_taken_for_them():
    """SentencePiece keeps control tokens among its pieces, with a score that would beat all others."""
    letters = [(c, -5.0) for c in "▁abcdefghijklmnopqrstuvwxyz</>"]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0), *letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=closed(tokenizer), mask_token="<mask>", **SPECIAL)
    (row,) = Template(fast, "{a} {mask}", False, 100).encode([("</s> <mask>",)])
    assert [i for i in row.input_ids if i < 5] == [0, 4, 2]


@DECODERS
@ANY_TEXT
def test_a_decoder_is_read_at_its_last_token(tokenizer, text):
    tokenizer = tokenizer()
    (row,) = Template(tokenizer, DECODER, True, 2000).encode([(text,)])
    written = ids_of(tokenizer, f"{text.strip()} It was")
    if written[-1] == tokenizer.eos_token_id:  # which closes the text, and the answer comes before
        written = written[:-1]
    assert row == Encoded(written, len(written) - 1, truncated=False)


def test_a_decoder_needs_something_to_read():
    template = Template(byte_pairs(), "{a}", True, 10)
    assert len(template.encode([("a",)])[0].input_ids) == 1
    with pytest.raises(LptError) as error:
        template.encode([("a",), (" ",)])
    assert str(error.value) == "a row without text leaves nothing to read in task.template='{a}'; remove it"
    assert Template(spaced(), "{a}", True, 10).encode([("",)]) == [Encoded([0], 0, False)]  # it reads <s>


def test_rows_are_encoded_alone_whatever_stands_beside_them():
    template = Template(byte_pairs(mask=True), ENCODER, False, 30)
    rows = [("a",), (EMOJI,), ("b" * 100,), ("",)]
    assert template.encode(rows) == [template.encode([row])[0] for row in rows]
    assert template.encode([]) == []


def test_settings_that_came_with_a_tokenizer_neither_cut_nor_pad():
    saved = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(words().backend_tokenizer.to_str()), **SPECIAL)
    saved.add_special_tokens({"mask_token": "<mask>"})
    saved.backend_tokenizer.enable_truncation(4)
    saved.backend_tokenizer.enable_padding(length=32)
    rows = [("a b c d e f g",), ("a",)]
    assert Template(saved, ENCODER, False, 50).encode(rows) == Template(words(), ENCODER, False, 50).encode(rows)


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (ENCODER, ("a", "b"), "takes {a} alone, but a row has 2 sentences"),
        ("{a} ? {mask} , {b}", ("a",), "takes {a} and {b}, but a row has 1 sentences"),
    ],
)
def test_no_sentence_is_left_out_or_missed_in_silence(template, row, message):
    with pytest.raises(LptError) as error:
        Template(words(), template, False, 50).encode([row])
    assert str(error.value) == f"task.template={template!r} {message}"


# Truncation


@pytest.mark.parametrize(
    ("template", "sentences", "max_length", "text"),
    [
        (ENCODER, "a b c d e f", 12, "a b c d e f It was <mask> ."),
        (ENCODER, "a b c d e f", 11, "a b c d e It was <mask> ."),
        (ENCODER, "a b c d e f", 7, "a It was <mask> ."),
        (ENCODER, "a b c d e f", 6, "It was <mask> ."),
        ("{mask} : {a}", "a b c d e f", 7, "<mask> : a b c"),
        # The longer sentence first, then both in turn.
        ("{a} ? {mask} , {b}", "a b c d e f|g h", 12, "a b c d e ? <mask> , g h"),
        ("{a} ? {mask} , {b}", "a b c d e f|g h", 9, "a b ? <mask> , g h"),
        ("{a} ? {mask} , {b}", "a b|c d e f g h", 9, "a b ? <mask> , c d"),
        ("{a} ? {mask} , {b}", "a b|c d e f g h", 8, "a ? <mask> , c d"),
        ("{a} ? {mask} , {b}", "a b c d e f|g h", 7, "a ? <mask> , g"),
        ("{a} ? {mask} , {b}", "a b c d e f|g h", 6, "? <mask> , g"),
        ("{a} ? {mask} , {b}", "a b c d e f|", 8, "a b c ? <mask> ,"),
    ],
)
def test_the_longest_text_is_cut_at_its_end_and_the_template_never(template, sentences, max_length, text):
    (row,) = Template(words(), template, False, max_length).encode([tuple(sentences.split("|"))])
    expected = ids_of(words(), text)
    assert row.input_ids == expected
    assert row.readout_position == expected.index(words().mask_token_id)
    assert row.truncated == (max_length < 12 or "|" in sentences)


TRUNCATED = [
    "a b c " * 40,
    EMOJI * 5,
    "😀" * 40,
    "é" * 61,
    "a" * 300,
    "great was " * 30,
    " . " * 90,
    "<mask> </s> " * 20,
]


@ENCODERS
@pytest.mark.parametrize("text", TRUNCATED, ids=range(len(TRUNCATED)))
def test_an_encoders_row_is_cut_to_any_length_and_keeps_template_and_mask(tokenizer, text):
    tokenizer = tokenizer()
    template = f"was was {{a}} was was {tokenizer.mask_token} was {{mask}} was"
    whole = len(Template(tokenizer, template, False, 10_000).encode([(text,)])[0].input_ids)
    fixed = len(ids_of(tokenizer, Template(tokenizer, template, False, 10).render(("",))[0]))
    for max_length in {*range(fixed, min(fixed + 20, whole)), whole - 1, whole}:
        (row,) = Template(tokenizer, template, False, max_length).encode([(text,)])
        assert row.truncated == (max_length < whole)
        assert len(row.input_ids) <= max_length
        # A character may be four tokens or more, and is kept whole or not at all.
        assert len(row.input_ids) > max_length - 16
        end = ids_of(tokenizer, f" was was {tokenizer.mask_token} was {tokenizer.mask_token} was")[1:]
        assert row.input_ids[-len(end) :] == end
        assert row.readout_position == len(row.input_ids) - 3
        assert row.input_ids[row.readout_position] == tokenizer.mask_token_id


@DECODERS
@pytest.mark.parametrize("text", TRUNCATED, ids=range(len(TRUNCATED)))
def test_a_decoders_row_is_cut_to_any_length_and_keeps_the_templates_end(tokenizer, text):
    tokenizer = tokenizer()
    (whole,) = Template(tokenizer, "{a} was was", True, 1000).encode([(text,)])
    for max_length in range(10, 45):
        (row,) = Template(tokenizer, "{a} was was", True, max_length).encode([(text,)])
        assert row.truncated
        assert not whole.truncated
        assert max_length - 16 < len(row.input_ids) <= max_length
        assert row.readout_position == len(row.input_ids) - 1
        shown = tokenizer.decode(row.input_ids).removeprefix("<s>").strip()
        assert shown.endswith("was was")
        kept = shown.removesuffix("was was").strip()
        assert "<unk>" in kept or text.strip().startswith(kept)


def test_cutting_removes_no_more_than_it_must():
    gpt2 = byte_pairs()
    for length in range(5, 60):
        (row,) = Template(gpt2, DECODER, True, length).encode([("x" * 100,)])
        assert len(row.input_ids) == length


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        return self.tokenizer(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("text", ["x" * 5000, "x" * 100 + " " * 5000 + "y", "x" * 100 + " " * 5000, "😀 " * 2000])
def test_a_long_text_is_cut_in_a_few_passes(text):
    tokenizer = Counting(byte_pairs())
    (row,) = Template(tokenizer, DECODER, True, 60).encode([(text,)])
    assert 57 <= len(row.input_ids) <= 60
    assert tokenizer.calls <= 7


@pytest.mark.parametrize(
    ("template", "row", "length", "limit"),
    [(ENCODER, ("a b c",), 6, 5), (ENCODER, ("",), 6, 5), ("{a} ? {mask} , {b}", ("a b", "c"), 5, 4)],
)
def test_a_template_that_alone_is_too_long_is_refused(template, row, length, limit):
    assert len(Template(words(), template, False, length).encode([row])[0].input_ids) == length
    with pytest.raises(LptError) as error:
        Template(words(), template, False, limit).encode([row])
    assert str(error.value) == (
        f"task.template={template!r} alone takes {length} tokens, more than task.max_length={limit}; "
        "raise task.max_length or shorten the template"
    )


# Templates that cannot be used


@pytest.mark.parametrize(
    ("text", "causal", "message"),
    [
        ("{a} is {adjective}", True, "has the unknown field {adjective}; use {a}, {b} and, for encoders, {mask}"),
        ("{a} is {}", True, "has the unknown field {}; use {a}, {b} and, for encoders, {mask}"),
        ("{a!r} is", True, "has the unknown field {a!r}; use {a}, {b} and, for encoders, {mask}"),
        ("{a} is {mask:>9}", False, "has the unknown field {mask:>9}; use {a}, {b} and, for encoders, {mask}"),
        ("{a.real} is", True, "has the unknown field {a.real}; use {a}, {b} and, for encoders, {mask}"),
        ("It was", True, "has no {a} for the text"),
        ("{b} is {mask}", False, "has no {a} for the text"),
        ("{a} is {mask}", True, "has a {mask}, but a decoder answers after the template's end"),
        ("{a} is ", True, "ends with a space; the label word brings its own (task.template.space)"),
        ("{a} is", False, "must contain {mask} exactly once"),
        ("{a} {mask} {mask}", False, "must contain {mask} exactly once"),
        ("{a} {{mask}}", False, "must contain {mask} exactly once"),
    ],
)
def test_a_template_without_the_right_fields_is_refused(text, causal, message):
    kind = "decoder" if causal else "encoder"
    for refuse in (lambda: check_template(text, causal), lambda: Template(words(), text, causal, 20)):
        with pytest.raises(LptError) as error:
            refuse()
        assert str(error.value) == f"task.template.{kind}={text!r} {message}"


@pytest.mark.parametrize("text", ["{a} is {", "{a} is }", "{a", "{a!}"])
def test_unbalanced_braces_are_refused(text):
    with pytest.raises(LptError) as error:
        template_fields(text)
    assert str(error.value).startswith(f"task.template={text!r} cannot be read: ")


def test_fields_are_told_in_order():
    assert template_fields("{mask} {{x}} {b}: {a} {a}") == ["mask", "b", "a", "a"]


def test_an_encoder_needs_a_tokenizer_with_a_mask():
    with pytest.raises(LptError) as error:
        Template(byte_pairs(), ENCODER, False, 20)
    assert str(error.value) == "the tokenizer has no mask token, which the encoder template needs"
    assert Template(byte_pairs(), DECODER, True, 20).text == DECODER


# Label words

LABELS = ["bad", "good"]
CHOOSE = "Choose other words, or use head=continuation with a decoder"


@pytest.mark.parametrize(
    ("tokenizer", "words", "tokens"),
    [
        (words, ("bad", " great "), ["bad", "great"]),
        (pieces, ("Was", "great"), ["was", "great"]),
        (byte_pairs, ("was", "great"), ["Ġwas", "Ġgreat"]),
        (spaced, ("a", "great"), ["▁a", "▁great"]),
        (lambda: real("gpt2"), ("terrible", "great"), ["Ġterrible", "Ġgreat"]),
        (lambda: real("roberta"), ("No", "Yes"), ["ĠNo", "ĠYes"]),
    ],
    ids=["words", "pieces", "byte_pairs", "spaced", "gpt2", "roberta"],
)
def test_a_label_word_is_one_token_with_the_space_before_it(tokenizer, words, tokens):
    tokenizer = tokenizer()
    ids = label_word_ids(tokenizer, dict(zip(LABELS, words, strict=True)), LABELS)
    assert tokenizer.convert_ids_to_tokens(ids) == tokens


def test_label_words_come_in_class_order():
    given = {"good": "great", "bad": "was"}
    assert label_word_ids(words(), given, LABELS) == label_word_ids(words(), given, LABELS[::-1])[::-1]


@pytest.mark.parametrize(
    ("tokenizer", "given", "message"),
    [
        (
            byte_pairs,
            {"bad": "wasp", "good": "great"},
            f"must be single tokens of this backbone's tokenizer; bad: 'wasp' splits into 'Ġwas' + 'p'. {CHOOSE}",
        ),
        (
            pieces,
            {"bad": "abc", "good": "i o"},
            "must be single tokens of this backbone's tokenizer; bad: 'abc' splits into 'a' + '##b' + '##c'; "
            "good: 'i o' splits into 'i' + 'o'. "
            f"{CHOOSE}",
        ),
        (
            words,
            {"bad": "terrible", "good": "great"},
            "must be single tokens of this backbone's tokenizer; bad: 'terrible' is unknown to the tokenizer. "
            f"{CHOOSE}",
        ),
        (
            pieces,
            {"bad": "\u0007", "good": "great"},
            f"must be single tokens of this backbone's tokenizer; bad: '\\x07' splits into nothing. {CHOOSE}",
        ),
        (words, {"bad": "great", "good": " great"}, "gives 'good' and 'bad' the same token ' great'"),
        (pieces, {"bad": "GREAT", "good": "great"}, "gives 'good' and 'bad' the same token 'great'"),
        (
            words,
            {"good": "great"},
            "lacks a word for 'bad'; give one for each of ['bad', 'good'], or use head=linear",
        ),
        (
            words,
            {"bad": " ", "good": ""},
            "lacks a word for 'bad', 'good'; give one for each of ['bad', 'good'], or use head=linear",
        ),
    ],
)
def test_label_words_that_cannot_be_told_apart_by_one_token_are_refused(tokenizer, given, message):
    with pytest.raises(LptError) as error:
        label_word_ids(tokenizer(), given, LABELS)
    assert str(error.value) == f"task.label_words {message}"


def test_the_split_of_a_word_is_shown_as_the_real_tokenizer_makes_it():
    with pytest.raises(LptError) as error:
        label_word_ids(real("gpt2"), {"bad": "lousiest", "good": "great"}, LABELS)
    assert "bad: 'lousiest' splits into 'Ġl" in str(error.value)
    assert "good" not in str(error.value)


# Whole answers


@pytest.mark.parametrize(
    ("tokenizer", "word", "answer", "tokens"),
    [
        (words, " great ", "{word} .", ["great", "."]),
        (words, "a great b", "{word}", ["a", "great", "b"]),
        (byte_pairs, "great", "{word} was", ["Ġgreat", "Ġwas"]),
        (byte_pairs, "great", " {word}.", ["Ġgreat", "."]),
        (spaced, "great", "{word}.", ["▁great", "."]),
        (spaced, "it", "a {word}", ["▁a", "▁", "i", "t"]),
    ],
)
def test_an_answer_is_what_follows_after_a_space(tokenizer, word, answer, tokens):
    tokenizer = tokenizer()
    given = {"bad": "bad", "good": word}
    ids = answer_ids(tokenizer, given, LABELS, answer)
    assert tokenizer.convert_ids_to_tokens(ids[1]) == tokens
    assert answer_ids(tokenizer, given, LABELS[::-1], answer) == ids[::-1]


@pytest.mark.parametrize("tokenizer", [byte_pairs, spaced, lambda: real("gpt2")], ids=["byte_pairs", "spaced", "gpt2"])
def test_text_and_answer_are_the_tokens_of_both_written_together(tokenizer):
    tokenizer = tokenizer()
    (encoded,) = Template(tokenizer, DECODER, causal=True, max_length=50).encode([("a great film",)])
    for word, answer in (("great", "{word} ."), ("a bad one", "great {word}.")):
        (ids,) = answer_ids(tokenizer, {"good": word}, ["good"], answer)
        whole = f"a great film It was {answer.format(word=word)}"
        assert encoded.input_ids + ids == ids_of(tokenizer, whole)


def test_so_they_are_where_the_space_between_them_is_a_token_of_its_own():
    (ids,) = answer_ids(byte_pairs(), {"good": "bad"}, ["good"], "{word}")
    assert ids_of(byte_pairs(), "It was") + ids == ids_of(byte_pairs(), "It was bad")


@pytest.mark.parametrize(
    ("given", "answer", "message"),
    [
        ({"good": "great"}, "{word}", "task.label_words lacks a word for 'bad'; give one for each of ['bad', 'good'], "
         "or use head=linear"),
        ({"bad": "zzz", "good": "great"}, "{word}", "task.label_words: the word 'zzz' for 'bad' is unknown to the "
         "tokenizer"),
        ({"bad": "great ", "good": "great"}, "{word} .", "task.label_words gives 'good' and 'bad' the same answer "
         "'great'"),
        *(({"bad": "bad", "good": "great"}, answer, f"task.template.answer={answer!r} must contain {{word}} exactly "
           "once, and no other field") for answer in ("", "great", "{word} {word}", "{a} {word}", "{}")),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_told_apart_are_refused(given, answer, message):
    with pytest.raises(LptError) as error:
        answer_ids(words(), given, LABELS, answer)
    assert str(error.value) == message


def test_answers_stand_behind_every_row_and_the_read_out_stays():
    plain = Template(words(), DECODER, causal=True, max_length=20)
    answering = Template(words(), DECODER, causal=True, max_length=20, answers=([7, 8, 7], [2, 2, 4]))
    for row, alone in zip(answering.encode([("a b",), ("c",)]), plain.encode([("a b",), ("c",)]), strict=True):
        assert row.input_ids == [*alone.input_ids, 7, 8, 7]
        assert (row.readout_position, row.branches) == (alone.readout_position, (2, 2, 4))
        assert alone.branches == ()


def test_cutting_leaves_room_for_the_answers():
    for max_length in range(8, 16):
        (row,) = Template(words(), DECODER, True, max_length, answers=([7, 8, 7], [2, 2, 4])).encode([("a b c d e f",)])
        (alone,) = Template(words(), DECODER, True, max_length - 3).encode([("a b c d e f",)])
        assert row.input_ids == [*alone.input_ids, 7, 8, 7]
        assert len(row.input_ids) <= max_length
        assert row.truncated == (max_length < 6 + 3 + 3)


def test_a_template_too_long_with_its_answers_is_told_the_whole_limit():
    with pytest.raises(LptError, match=r"alone takes 3 tokens, more than task.max_length=5; raise"):
        Template(words(), DECODER, True, 5, answers=([7, 8, 7], [2, 2, 4])).encode([("a b c d e f",)])


def test_without_space_answers_are_the_tokens_that_follow_directly():
    tokenizer, words = byte_pairs(), {"bad": "was", "good": "\u597d"}
    bad = tokenizer.convert_tokens_to_ids(["w", "a", "s"])
    good = tokenizer("\u597d")["input_ids"]
    assert answer_ids(tokenizer, words, ["bad", "good"], "{word}", space=False) == [bad, good]
    spaced_answers = answer_ids(tokenizer, words, ["bad", "good"], "{word}")
    assert spaced_answers == [tokenizer.convert_tokens_to_ids(["Ġwas"]), [tokenizer.convert_tokens_to_ids("Ġ"), *good]]
    one = spaced()  # puts a space of its own in front of a whole text
    assert label_word_ids(one, {"x": "a", "y": "great"}, ["x", "y"], space=False) == one.convert_tokens_to_ids(
        ["a", "great"]
    )
