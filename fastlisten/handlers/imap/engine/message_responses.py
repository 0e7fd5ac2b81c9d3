"""Writes untagged responses about the selected mailbox and its messages (RFC 3501 7.2-7.4).

Rules of this file: values to octets. Those that a client gets thousands of at a time take many
messages at once; flags come as they are written (`write_flags`), because most messages share a few
combinations, which are written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastlisten.handlers.imap.engine.dates import write_date_time
from fastlisten.handlers.imap.engine.sequence_sets import write_set
from fastlisten.handlers.imap.engine.strings import write_literal, write_string

__all__ = [
    "esearch_response",
    "exists_response",
    "expunge_responses",
    "fetch_flags_modseq_responses",
    "fetch_flags_responses",
    "fetch_response",
    "fetch_uid_flags_modseq_responses",
    "fetch_uid_flags_responses",
    "flags_response",
    "item_email_id",
    "item_flags",
    "item_internal_date",
    "item_literal_head",
    "item_modseq",
    "item_section",
    "item_size",
    "item_thread_id",
    "item_uid",
    "recent_response",
    "search_response",
    "vanished_ranges_response",
    "vanished_response",
    "written_numbers",
]


def exists_response(count: int) -> bytes:
    """EXISTS: how many messages there are."""
    return b"* %d EXISTS\r\n" % count


def recent_response(count: int) -> bytes:
    """RECENT: how many of them are new to this session."""
    return b"* %d RECENT\r\n" % count


def flags_response(flags: bytes) -> bytes:
    """FLAGS: which there are in the mailbox."""
    return b"* FLAGS (%b)\r\n" % flags


def expunge_responses(numbers: Iterable[int]) -> bytes:
    """EXPUNGE for several messages; each number counts after the ones before are gone."""
    return b"".join([b"* %d EXPUNGE\r\n" % number for number in numbers])


def vanished_response(uids: Iterable[int], *, earlier: bool = False) -> bytes:
    """VANISHED (RFC 7162 3.2.10); nothing if there are no UIDs.

    Args:
        uids: ascending.
        earlier: they were gone before: the answer to FETCH or SELECT.
    """
    written = write_set(uids)
    if not written:
        return b""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", written)


def vanished_ranges_response(ranges: Iterable[tuple[int, int]]) -> bytes:
    """VANISHED (EARLIER) of whole ranges of UIDs; nothing if there are none.

    Args:
        ranges: first and last UID of each, ascending.
    """
    written = b",".join(
        [b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in ranges]
    )
    return b"* VANISHED (EARLIER) %b\r\n" % written if written else b""


# --- SEARCH ---------------------------------------------------------------------------------------


def search_response(numbers: Sequence[int], modseq: int | None = None) -> bytes:
    """SEARCH, with the largest modification sequence of what was found (RFC 7162 3.1.6)."""
    if not numbers:
        return b"* SEARCH\r\n"
    found = b"" if modseq is None else b" (MODSEQ %d)" % modseq
    return b"* SEARCH %b%b\r\n" % (written_numbers(numbers), found)


def written_numbers(numbers: Sequence[int]) -> bytes:
    """Return numbers with blanks in between."""
    # Python writes a list in half the time that it takes to write its numbers one by one.
    return str(list(numbers))[1:-1].replace(",", "").encode("ascii")


def esearch_response(
    tag: bytes,
    numbers: Sequence[int],
    returns: frozenset[str],
    *,
    uid: bool,
    modseq: int | None = None,
) -> bytes:
    """ESEARCH (RFC 4731 3.1); nothing if the result is only to be saved (RFC 5182 2.1).

    Args:
        tag: of the command.
        numbers: what was found, ascending, as message numbers or UIDs.
        returns: what was asked for: MIN, MAX, ALL, COUNT.
        uid: they are UIDs.
        modseq: the largest modification sequence of what is returned, if it is to be said.
    """
    if returns == {"SAVE"}:
        return b""
    words = [b"* ESEARCH (TAG %b)" % write_string(tag)]
    if uid:
        words.append(b"UID")
    if numbers and "MIN" in returns:
        words.append(b"MIN %d" % numbers[0])
    if numbers and "MAX" in returns:
        words.append(b"MAX %d" % numbers[-1])
    if numbers and "ALL" in returns:
        words.append(b"ALL " + write_set(numbers))
    if "COUNT" in returns:
        words.append(b"COUNT %d" % len(numbers))
    if modseq is not None and numbers:
        words.append(b"MODSEQ %d" % modseq)
    return b" ".join(words) + b"\r\n"


# --- FETCH ----------------------------------------------------------------------------------------


def fetch_response(number: int, items: Iterable[bytes]) -> bytes:
    """FETCH of one message, of items that were written by the functions below."""
    return b"* %d FETCH (%b)\r\n" % (number, b" ".join(items))


def fetch_flags_responses(rows: Iterable[tuple[int, bytes]]) -> bytes:
    """FETCH of the flags of many messages, each as message number and flags."""
    return b"".join([b"* %d FETCH (FLAGS (%b))\r\n" % row for row in rows])


def fetch_uid_flags_responses(rows: Iterable[tuple[int, int, bytes]]) -> bytes:
    """FETCH of UID and flags of many messages: message number, UID, flags."""
    return b"".join([b"* %d FETCH (UID %d FLAGS (%b))\r\n" % row for row in rows])


def fetch_flags_modseq_responses(rows: Iterable[tuple[int, bytes, int]]) -> bytes:
    """FETCH of flags and modification sequences: message number, flags, modseq."""
    return b"".join([b"* %d FETCH (FLAGS (%b) MODSEQ (%d))\r\n" % row for row in rows])


def fetch_uid_flags_modseq_responses(rows: Iterable[tuple[int, int, bytes, int]]) -> bytes:
    """FETCH of all three: message number, UID, flags, modseq."""
    return b"".join([b"* %d FETCH (UID %d FLAGS (%b) MODSEQ (%d))\r\n" % row for row in rows])


def item_uid(uid: int) -> bytes:
    """UID."""
    return b"UID %d" % uid


def item_flags(flags: bytes) -> bytes:
    """FLAGS."""
    return b"FLAGS (%b)" % flags


def item_modseq(modseq: int) -> bytes:
    """MODSEQ (RFC 7162 3.1.4)."""
    return b"MODSEQ (%d)" % modseq


def item_size(octets: int) -> bytes:
    """RFC822.SIZE."""
    return b"RFC822.SIZE %d" % octets


def item_internal_date(seconds: int) -> bytes:
    """INTERNALDATE, from seconds since 1970."""
    return b"INTERNALDATE " + write_date_time(seconds)


def item_email_id(identifier: str) -> bytes:
    """EMAILID (RFC 8474 5.1)."""
    return b"EMAILID (%b)" % identifier.encode("ascii")


def item_thread_id(identifier: str | None) -> bytes:
    """THREADID (RFC 8474 5.2); NIL if the server has none."""
    return b"THREADID NIL" if identifier is None else b"THREADID (%b)" % identifier.encode("ascii")


def item_section(label: bytes, octets: bytes | None) -> bytes:
    """Octets of a message, always as a literal; NIL if there is no such part.

    Args:
        label: of the section that was asked for.
        octets: what is in it.
    """
    return b"%b %b" % (label, b"NIL" if octets is None else write_literal(octets))


def item_literal_head(label: bytes, size: int) -> bytes:
    """What precedes octets that the caller writes after it: exactly `size`, without a NUL."""
    return b"%b {%d}\r\n" % (label, size)
