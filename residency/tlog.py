"""The Ledger's tree: roots, inclusion and consistency proofs, checkpoints and proof files.

Rules kept here: hashes as RFC 6962 (leaf `0x00 ‖ data`, inner `0x01 ‖ left ‖ right`, SHA-256); texts as C2SP
tlog-checkpoint and tlog-proof, read strictly, so that no two byte strings mean the same.
No IO: whoever keeps the hashes hands in `Get`. Signatures over these texts are in `notes.py`.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from residency.errors import LeafError, LedgerError

Place = tuple[int, int]
"""A complete subtree: (level, index) covers leaves from index · 2^level on, 2^level of them."""
Span = tuple[int, int]
"""Leaves from the first up to, without, the second."""
Get = Callable[[Place], bytes]
"""Gives the stored hash of a complete subtree."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
PROOF_HEAD: Final = "c2sp.org/tlog-proof@v1"


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf; 32 bytes. Source: RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Hash two neighbours into their parent; 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def places(span: Span) -> list[Place]:
    """Cut a span that begins at a subtree's edge into complete subtrees, left to right, largest first."""
    start, end = span
    found: list[Place] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def span_hash(span: Span, get: Get) -> bytes:
    """Hash a span from the complete subtrees it is made of; the empty span has the empty tree's root."""
    parts = [get(place) for place in places(span)]
    if not parts:
        return EMPTY_ROOT
    result = parts.pop()
    while parts:
        result = inner_hash(parts.pop(), result)
    return result


def grow(size: int, leaf: bytes, get: Get) -> list[tuple[Place, bytes]]:
    """Append one leaf hash to a tree of `size` leaves; give every subtree that this completes, lowest first.

    `get` is asked for right edges of the tree as it was.
    """
    level, index, result = 0, size, leaf
    done = [((0, size), leaf)]
    while index & 1:
        result = inner_hash(get((level, index - 1)), result)
        level, index = level + 1, index >> 1
        done.append(((level, index), result))
    return done


def _split(size: int) -> int:
    """Give the largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Name the spans whose hashes prove leaf `index` in a tree of `size`, from the leaf's sibling to the root's child.

    Raises `LeafError` when the tree has no such leaf. Source: RFC 6962 section 2.1.1.
    """
    if not 0 <= index < size:
        raise LeafError(f"the tree of {size} leaves has no leaf {index}", hint="ask for a smaller index")
    start, end = 0, size
    spans: list[Span] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Name the spans whose hashes prove that the tree of `new` leaves continues that of `old`.

    Raises `LeafError` unless 0 <= old <= new. Source: RFC 6962 section 2.1.2.
    """
    if not 0 <= old <= new:
        raise LeafError(f"a tree of {new} leaves cannot continue one of {old}", hint="swap the two sizes")
    if old in (0, new):
        return []
    start, end, whole = 0, new, True
    spans: list[Span] = []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    if not whole:
        spans.append((start, end))
    return spans[::-1]


def included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether `proof` leads from the leaf's hash to the root. Source: RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = inner_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = inner_hash(result, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether `proof` shows that the newer tree continues the older. Source: RFC 9162 section 2.1.4.2."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first, second = inner_hash(sibling, first), inner_hash(sibling, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = inner_hash(second, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


# --- texts ----------------------------------------------------------------------------------------------------------


def decode(text: str) -> bytes:
    """Read standard base64 that has exactly one spelling; anything else raises `LedgerError`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LedgerError("not base64", hint="take the file anew from where it came") from error
    if encode(data) != text:
        raise LedgerError("base64 with stray bits", hint="take the file anew from where it came")
    return data


def encode(data: bytes) -> str:
    """Write standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def number(text: str) -> int:
    """Read a decimal without sign or leading zeros; anything else raises `LedgerError`."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or len(text) > 18:
        raise LedgerError("not a plain decimal", hint="take the file anew from where it came")
    return int(text)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log signs: its name, how many leaves it holds, and the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note text that is signed, three lines. Source: c2sp.org/tlog-checkpoint."""
        return f"{self.origin}\n{self.size}\n{encode(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a note's text; raises `LedgerError` on any other form, extension lines included."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0]:
            raise LedgerError("not a checkpoint", hint="a checkpoint has three lines: origin, size, root")
        root = decode(lines[2])
        if len(root) != 32:
            raise LedgerError("the checkpoint's root is not 32 bytes", hint="take the checkpoint anew")
        return cls(lines[0], number(lines[1]), root)


@dataclass(frozen=True, slots=True)
class Proof:
    """An inclusion proof that stands alone: index, hashes from leaf to root, and the signed checkpoint's text."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str

    @property
    def text(self) -> str:
        """The proof file, to be named `.tlog-proof`. Source: c2sp.org/tlog-proof."""
        lines: Iterable[str] = (PROOF_HEAD, f"index {self.index}", *(encode(h) for h in self.hashes), "")
        return "\n".join(lines) + "\n" + self.checkpoint

    @classmethod
    def parse(cls, text: str) -> "Proof":
        """Read a proof file; raises `LedgerError` on any other form. An `extra` line is refused: we write none."""
        head, gap, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not gap or lines[0] != PROOF_HEAD or len(lines) < 2 or not lines[1].startswith("index "):
            raise LedgerError("not a proof file", hint=f"it begins with {PROOF_HEAD}")
        hashes = tuple(decode(line) for line in lines[2:])
        if len(hashes) > 63 or any(len(h) != 32 for h in hashes):
            raise LedgerError("the proof holds something that is no hash", hint="take the proof anew")
        return cls(number(lines[1].removeprefix("index ")), hashes, checkpoint)
