"""What a text is: the one check that every text passes, from Python, stdin, arguments or files."""

from collections.abc import Iterable, Iterator
from typing import Any

from lpt.errors import LptError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def text_problem(value: Any) -> str | None:
    """Say why a value is not a text, as the end of a sentence; None where it is one.

    A text is a `str` that UTF-8 can encode. A number is not turned into one: 007 would become "7".
    """
    if value is None:
        return "is missing; give it a text, or remove the row"
    if isinstance(value, bytes | bytearray):
        return "is bytes; decode them first, as in value.decode()"
    if not isinstance(value, str):
        return f"is {value!r}, of type {type(value).__name__}; write it as a text, in quotes"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        return f"has half of a character (lone surrogate U+{code:04X}) at place {error.start + 1}; correct or remove it"
    return None


def cut(text: str, most: int) -> str:
    """Return the first `most` characters of a text, the last of them … where there were more."""
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def read_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 stream, one at a time, without their ends and without a byte order mark.

    Args:
        stream: lines of bytes, such as `sys.stdin.buffer`.
        name: of the stream, for error messages.

    Raises:
        LptError: names the first line that is not UTF-8.
    """
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
            if not line:  # there was nothing else
                return
        try:
            yield line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise LptError(
                f"{name}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8; convert the text to UTF-8"
            ) from None
