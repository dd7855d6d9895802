"""Reading a text word by word: what stands here, what may come next, and which word was wrong."""

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from jobmaster.model.errors import ExpressionInvalid

T = TypeVar("T")
_WORD = re.compile(r",|[^\s,]+")


class Word(NamedTuple):
    """A word or a comma, and where it begins."""

    text: str
    start: int


def words_of(text: str) -> list[Word]:
    """The words of a text; a comma is one."""
    return [Word(found.group(), found.start()) for found in _WORD.finditer(text)]


class Reader:
    """A text and a place in it, which only goes forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = words_of(text)
        self.at = 0

    def list_of(self, read: Callable[[], T]) -> list[T]:
        """One or more, with commas, `and`, or both between them."""
        found = [read()]
        while self.peek() in (",", "and"):
            self.skip(",")
            self.skip("and")
            found.append(read())
        return found

    def value(self, read: Callable[[str], T | None], expected: str) -> T:
        """What `read` makes of the word here, which is passed; one it makes nothing of is the fault."""
        value = read(self.peek())
        if value is None:
            self.fail(expected)
        self.at += 1
        return value

    def peek(self, ahead: int = 0) -> str:
        """The word here, or some words ahead; empty after the last."""
        at = self.at + ahead
        return self.words[at].text if at < len(self.words) else ""

    def take(self) -> str:
        """The word here, which is passed."""
        self.at += 1
        return self.words[self.at - 1].text

    def skip(self, word: str) -> bool:
        """Whether that word is here; then it is passed."""
        here = self.peek() == word
        self.at += here
        return here

    def expect(self, word: str, expected: str) -> None:
        """Pass that word, which must be here."""
        if not self.skip(word):
            self.fail(expected)

    def fail(self, expected: str, problem: str = "is not understood") -> NoReturn:
        """Raise `ExpressionInvalid` for the word here."""
        if self.at < len(self.words):
            word = self.words[self.at]
            raise ExpressionInvalid(self.text, word.text, problem, expected, word.start)
        raise ExpressionInvalid(self.text, self.text, "ends too early", expected)
