"""Questions: what may be asked at all, and how a follow-up is read together with what was asked before it; pure.

Rules kept here: a question that is too long is refused by name of the limit, never cut in silence; of a conversation
only the asker's own earlier questions are read, and what they quote is data. A follow-up is joined with the question
before it when it is short and points back; nothing is rewritten, so nothing can be invented.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from service.errors import InvalidRequestError

LONGEST: Final = 8000
"""Characters of a question, unless the settings say otherwise."""
SHORT: Final = 9
"""Words up to which a question may be a follow-up."""
EARLIER: Final = 400
"""Characters of the earlier question that are joined: its end, where questions usually stand."""

_BACK: Final = re.compile(
    r"\b(?:"
    # en
    r"it|its|they|them|their|those|these|this|that|there|he|she|his|her|him|then|"
    # de
    r"er|sie|es|ihr|ihre|ihm|ihn|ihnen|dessen|deren|das|dies|diese|dieser|dieses|dort|davon|dafür|dazu|damit|dabei|"
    # fr
    r"il|elle|ils|elles|lui|leur|leurs|cela|ça|ceci|celui|celle|ceux|y|en|là|"
    # es
    r"él|ella|ellos|ellas|eso|esa|ese|esto|esta|este|allí|ahí|lo|su|sus"
    r")\b",
    re.IGNORECASE,
)
_GOES_ON: Final = re.compile(
    r"^\W*(?:and|or|what about|how about|why|but|und|oder|aber|was ist mit|wie sieht es mit|warum|"
    r"et|ou|mais|qu'en est-il|pourquoi|y|o|pero|qué tal|qué hay de|por qué)\b",
    re.IGNORECASE,
)

_LANGUAGE: Final = re.compile(r"(?:(?P<code>[A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{2,8})*)?")


def readable(text: str, *, most: int = LONGEST, param: str = "query") -> str:
    """Give the question as it is searched for: control characters are blanks. Raises `InvalidRequestError`.

    Empty, blank, or control characters only is no question; more than `most` characters is refused, never cut.
    """
    if len(text) > most:
        raise InvalidRequestError(
            f"the question has {len(text)} characters, and at most {most} are read",
            param=param,
            hint="ask in a sentence or two; put long texts in as documents",
        )
    plain = "".join(" " if unicodedata.category(each) in ("Cc", "Cs") else each for each in text)
    if blank(plain):
        raise InvalidRequestError("the question is empty", param=param, hint="write a question")
    return plain.strip()


def spoken_in(code: str) -> str:
    """Give a language that an asker named, in lower case; empty when none was. Raises `InvalidRequestError`.

    A region behind the code (`de-AT`, RFC 5646) names no other stemmer and is left out.
    """
    found = _LANGUAGE.fullmatch(code.strip())
    if found is None:
        hint = "give an ISO 639-1 code such as `de`, or leave `language` out"
        raise InvalidRequestError("`language` names no language", param="language", hint=hint)
    return found["code"].lower() if found["code"] else ""


def blank(text: str) -> bool:
    """Say whether there is nothing to read: blanks, control and format characters only."""
    return all(unicodedata.category(each)[0] in "CZ" for each in text)


def fitting(text: str, count: Callable[[str], int], most: int) -> str:
    """Give the longest beginning of a text, at a blank if there is one, that has at most `most` tokens."""
    if count(text) <= most:
        return text
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    if count(text[: ends[0]]) > most:  # one endless word
        ends = list(range(1, ends[0] + 1))
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[: ends[middle]]) <= most else (low, middle - 1)
    return text[: ends[low]]


def earlier(questions: Sequence[str]) -> str:
    """Give the earlier question that the last one is to be read with; empty when it stands on its own.

    `questions` are those of the asker, oldest first, the last one included.
    """
    *before, last = questions
    before = [each for each in before if each.strip()]
    if not before or len(last.split()) > SHORT:
        return ""
    if not (_BACK.search(last) or _GOES_ON.search(last) or len(last.split()) <= 2):
        return ""
    return before[-1].strip()[-EARLIER:]
