# What mail protocols look for in octets: ends of lines and of messages, plain names and paths; and
# what they write thousands of at a time.
#
# Rules of this file: functions that look at every octet, and do nothing else; no state, no I/O.
# Where a function knows only the usual forms of something, it says so by -1 or False, and the
# caller, which is written in Python, decides about the others. Positions are checked once, at the
# beginning of a function.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    /* 16 octets at a time, by GCC's and clang's vectors: every processor that Linux runs on has
       registers of that size, or the compiler makes do without. */
    typedef unsigned char fl_vector __attribute__((vector_size(16)));
    typedef signed char fl_mask __attribute__((vector_size(16)));

    static inline fl_vector fl_load(const unsigned char *from) {
        fl_vector octets;
        memcpy(&octets, from, sizeof(octets));
        return octets;
    }

    static inline int fl_any(fl_mask mask) {
        uint64_t halves[2];
        memcpy(halves, &mask, sizeof(mask));
        return (halves[0] | halves[1]) != 0;
    }

    /* Return the first position from `at` on of a CR that no LF follows, of an LF that no CR
       precedes, or (if `dots`) of a CRLF that a dot follows; `size` if there is none. The octet
       before `at` does not count, and a CR at the end is followed by none. */
    static inline ptrdiff_t fl_odd_break(
        const unsigned char *octets, ptrdiff_t at, ptrdiff_t size, int dots)
    {
        ptrdiff_t i;
        if (at < size && octets[at] == '\\n')
            return at;
        for (i = at; size - i >= 34; i += 32) {
            fl_vector next = fl_load(octets + i + 1), more = fl_load(octets + i + 17);
            fl_mask lf = next == '\\n', lf2 = more == '\\n';
            fl_mask odd = ((fl_load(octets + i) == '\\r') ^ lf)
                        | ((fl_load(octets + i + 16) == '\\r') ^ lf2);
            if (dots)
                odd |= (lf & (fl_load(octets + i + 2) == '.'))
                     | (lf2 & (fl_load(octets + i + 18) == '.'));
            if (fl_any(odd))
                break;
        }
        for (; i < size; i++) {
            if (octets[i] == '\\r') {
                if (size - i < 2 || octets[i + 1] != '\\n')
                    return i;
                if (dots && size - i > 2 && octets[i + 2] == '.')
                    return i;
            } else if (octets[i] == '\\n' && octets[i - 1] != '\\r')
                return i;
        }
        return size;
    }

    /* Kinds of characters. */
    #define FL_ATEXT 1   /* of an atom (RFC 5321 4.1.2) */
    #define FL_LABEL 2   /* letters and digits */
    #define FL_NAME 4    /* of what a client calls itself: see `is_plain_name` */

    static const unsigned char fl_kinds[256] = {
        ['a' ... 'z'] = 7, ['A' ... 'Z'] = 7, ['0' ... '9'] = 7,
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\\''] = 1, ['*'] = 1,
        ['='] = 1, ['?'] = 1, ['^'] = 1, ['`'] = 1, ['{'] = 1, ['|'] = 1, ['}'] = 1,
        ['+'] = 5, ['-'] = 5, ['/'] = 5, ['_'] = 5, ['~'] = 5,
        ['.'] = 4, [':'] = 4,
    };

    /* Return how many octets a series of words with dots between them has, each word of 1 to
       `most` characters of a kind; 0 if there is none. With `hyphens` there may be one inside a
       word, not two beside each other. */
    static inline ptrdiff_t fl_dotted(
        const unsigned char *octets, ptrdiff_t size, int kind, ptrdiff_t most, int hyphens)
    {
        ptrdiff_t i = 0, word;
        for (;;) {
            for (word = i; i < size; i++) {
                if (fl_kinds[octets[i]] & kind)
                    continue;
                if (!hyphens || octets[i] != '-' || i == word || octets[i - 1] == '-')
                    break;
            }
            if (i == word || i - word > most || (hyphens && octets[i - 1] == '-'))
                return 0;
            if (i == size || octets[i] != '.')
                return i;
            i++;
        }
    }
    """
    int FL_ATEXT
    int FL_LABEL
    int FL_NAME
    const unsigned char[256] fl_kinds
    Py_ssize_t fl_odd_break(const unsigned char *, Py_ssize_t, Py_ssize_t, bint)
    Py_ssize_t fl_dotted(const unsigned char *, Py_ssize_t, int, Py_ssize_t, bint)
    void *memmem(const void *, size_t, const void *, size_t)

# What ends a message.
cdef const unsigned char *END = b"\r\n.\r\n"

# The most octets of an address: those of a path (RFC 5321 4.5.3.1.3) without its brackets.
cdef enum:
    LONGEST_ADDRESS = 254
    LONGEST_LABEL = 63


cdef const unsigned char *octets_of(bytes data, Py_ssize_t start) except NULL:
    if data is None:
        raise TypeError("expected bytes, not None")
    if not 0 <= start <= PyBytes_GET_SIZE(data):
        raise IndexError("position outside of the octets")
    return <const unsigned char *>PyBytes_AS_STRING(data)


cpdef bytes part(bytes data, Py_ssize_t start, Py_ssize_t stop):
    """Return ``data[start:stop]``, for positions that are not negative."""
    cdef const unsigned char *octets = octets_of(data, start)
    if start == 0 and stop >= PyBytes_GET_SIZE(data):
        return data
    stop = min(stop, PyBytes_GET_SIZE(data))
    return PyBytes_FromStringAndSize(<const char *>octets + start, max(stop - start, 0))


# --- lines ----------------------------------------------------------------------------------------


cpdef Py_ssize_t line_end(bytes data, Py_ssize_t start, Py_ssize_t most) except -2:
    """Return where the CRLF of a line begins, or -1 if it is bad, incomplete or too long.

    A bad line contains another CR, another LF, or a NUL.

    Args:
        start: where the line begins.
        most: octets that it may have, CRLF included.
    """
    cdef const unsigned char *octets = octets_of(data, start)
    cdef Py_ssize_t size = min(PyBytes_GET_SIZE(data) - start, most)
    cdef const unsigned char *line = octets + start
    if size < 2:
        return -1
    cdef const unsigned char *lf = <const unsigned char *>memchr(line, 10, size)
    if lf == NULL or lf == line or (lf - 1)[0] != 13:
        return -1
    if memchr(line, 13, lf - 1 - line) != NULL or memchr(line, 0, lf - line) != NULL:
        return -1
    return lf - 1 - octets


cpdef tuple split_command(bytes line):
    """Return a command's verb in upper case, and its argument.

    White space around the argument is dropped: spaces before it, spaces and tabs after it.
    """
    cdef const unsigned char *octets = octets_of(line, 0)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(line), verb = 0, argument, i
    while end > 0 and (octets[end - 1] == 32 or octets[end - 1] == 9):
        end -= 1
    while verb < end and octets[verb] != 32:
        verb += 1
    argument = verb
    while argument < end and octets[argument] == 32:
        argument += 1
    # Without octets: a copy of one octet would be the object that everybody shares.
    cdef bytes name = PyBytes_FromStringAndSize(NULL, verb)
    cdef unsigned char *text = <unsigned char *>PyBytes_AS_STRING(name)
    for i in range(verb):
        text[i] = octets[i] - 32 if 97 <= octets[i] <= 122 else octets[i]
    return name, PyBytes_FromStringAndSize(<const char *>octets + argument, end - argument)


# --- messages -------------------------------------------------------------------------------------


cpdef (Py_ssize_t, bint, bint, bint) find_end(bytes data, Py_ssize_t start) except *:
    """Look for the end of a message, CRLF "." CRLF, in a piece of it.

    Returns:
        Where the piece ends, after the first CRLF of the end or before what may be the beginning
        of one; whether the message ends there; whether the piece contains lines with a dot to be
        removed; and whether it contains a bare CR or LF.
    """
    cdef const unsigned char *octets = octets_of(data, start)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = start
    cdef bint dots = False
    cdef const unsigned char *found
    while True:
        at = fl_odd_break(octets, at, size, True)
        if at == size:
            if size - start >= 2 and octets[size - 1] == 10:
                at -= 2  # the only LFs here have a CR
            return at, False, dots, False
        if octets[at] != 13 or (size - at > 1 and octets[at + 1] != 10):
            break
        if size - at < 3 or (size - at == 3 or size - at == 4 and octets[at + 3] == 13):
            return at, False, dots, False
        if octets[at + 3] == 13 and octets[at + 4] == 10:
            return at + 2, True, dots, False
        dots = True
        at += 3
    # A bare CR or LF. It is not part of an end, so that one may follow it, but not contain it.
    found = <const unsigned char *>memmem(octets + at, size - at, END, 5)
    if found != NULL:
        return found - octets + 2, True, dots, True
    for at in range(4, 0, -1):
        if size - start >= at and octets[size - at] == 13 and is_end(octets + size - at, at):
            return size - at, False, dots, True
    return size, False, dots, True


cdef bint is_end(const unsigned char *octets, Py_ssize_t size) noexcept:
    """Whether these octets begin the end of a message."""
    cdef Py_ssize_t i
    for i in range(size):
        if octets[i] != END[i]:
            return False
    return True


cpdef bint has_bare_break(bytes data, Py_ssize_t start) except -1:
    """Whether a piece of text contains an LF without CR, or a CR without LF.

    A CR at its end is not judged: its LF may begin the next piece.
    """
    cdef const unsigned char *octets = octets_of(data, start)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = fl_odd_break(octets, start, size, False)
    return at < size and (at < size - 1 or octets[at] != 13)


# --- names and paths ------------------------------------------------------------------------------


cpdef bint is_plain_name(bytes data) except -1:
    """Whether a client's name has letters, digits and ``.:+/~_-`` only, and at least one."""
    cdef const unsigned char *octets = octets_of(data, 0)
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(data)):
        if not fl_kinds[octets[i]] & FL_NAME:
            return False
    return PyBytes_GET_SIZE(data) > 0


cpdef (Py_ssize_t, Py_ssize_t, Py_ssize_t) plain_path(bytes data, bytes keyword) except *:
    """Find the path of ``FROM:<local@domain>`` or ``TO:<local@domain>``, if it is a plain one.

    A plain path has at most 256 octets and no source route; its local part is of atoms with dots
    between them; its domain is a name in ASCII, no label of which has two hyphens beside each other
    (so that none is an internationalised one).

    Args:
        data: the argument of MAIL or RCPT.
        keyword: ``FROM:`` or ``TO:``.

    Returns:
        Where the local part begins, where the at sign is, and where the closing bracket is; three
        times -1 if the path is not plain.
    """
    cdef const unsigned char *octets = octets_of(data, 0)
    cdef const unsigned char *word = octets_of(keyword, 0)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), begin, at, end, i
    begin = PyBytes_GET_SIZE(keyword)
    if size <= begin:
        return -1, -1, -1
    for i in range(begin):
        if octets[i] != word[i] and not (97 <= octets[i] <= 122 and octets[i] - 32 == word[i]):
            return -1, -1, -1
    while begin < size and octets[begin] == 32:
        begin += 1
    if begin == size or octets[begin] != 60:
        return -1, -1, -1
    begin += 1
    at = begin + fl_dotted(octets + begin, size - begin, FL_ATEXT, LONGEST_ADDRESS, False)
    if at == begin or at == size or octets[at] != 64:
        return -1, -1, -1
    at += 1
    end = at + fl_dotted(octets + at, size - at, FL_LABEL, LONGEST_LABEL, True)
    if end == at or end == size or octets[end] != 62 or end - begin > LONGEST_ADDRESS:
        return -1, -1, -1
    return begin, at - 1, end


# --- flags of many messages -----------------------------------------------------------------------

# The most octets of a number, and of a FETCH response without its flags and numbers.
cdef enum:
    LONGEST_NUMBER = 20
    LONGEST_FRAME = 64


cdef inline char *write_number(char *to, unsigned long long number) noexcept:
    """Write a number in decimal; return where it ends."""
    cdef char[LONGEST_NUMBER] digits
    cdef int count = 0
    while True:
        digits[count] = <char>(48 + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    while count > 0:
        count -= 1
        to[0] = digits[count]
        to += 1
    return to


cdef inline char *write_text(char *to, const char *text, Py_ssize_t size) noexcept:
    memcpy(to, text, size)
    return to + size


cpdef bytes fetch_flags(
    Py_ssize_t number, bytes bits, list written, dict others, const unsigned int[:] uids,
    const unsigned long long[:] modseqs,
):
    """Write FETCH responses of IMAP with flags for messages that follow each other.

    Args:
        number: of the first message.
        bits: what each has: an index of `written`.
        written: the flags in their written form for each value of `bits`, None for those that
            `others` has.
        others: the flags of a message by its place in `bits`; if there are none, it is left out.
        uids: their UIDs, written if not None.
        modseqs: their modification sequences, written if not None.
    """
    cdef Py_ssize_t count = PyBytes_GET_SIZE(bits), kinds = len(written), longest = 0, place
    cdef const unsigned char *index = octets_of(bits, 0)
    cdef bytes flags
    cdef object one
    if others is None or (uids is not None and uids.shape[0] < count) or (
        modseqs is not None and modseqs.shape[0] < count
    ):
        raise ValueError("fewer values than messages")
    for one in written:
        if one is not None:
            longest = max(longest, len(one))
    for one in others.values():
        longest = max(longest, len(one))
    cdef bytes buffer = PyBytes_FromStringAndSize(
        NULL, count * (longest + LONGEST_FRAME + 3 * LONGEST_NUMBER)
    )
    cdef char *begin = PyBytes_AS_STRING(buffer)
    cdef char *to = begin
    for place in range(count):
        one = written[index[place]] if index[place] < kinds else None
        if one is None:
            one = others.get(place)
            if one is None:
                continue
        flags = one
        to = write_text(to, b"* ", 2)
        to = write_number(to, number + place)
        to = write_text(to, b" FETCH (", 8)
        if uids is not None:
            to = write_text(to, b"UID ", 4)
            to = write_number(to, uids[place])
            to = write_text(to, b" ", 1)
        to = write_text(to, b"FLAGS (", 7)
        to = write_text(to, PyBytes_AS_STRING(flags), PyBytes_GET_SIZE(flags))
        if modseqs is not None:
            to = write_text(to, b") MODSEQ (", 10)
            to = write_number(to, modseqs[place])
        to = write_text(to, b"))\r\n", 4)
    return PyBytes_FromStringAndSize(begin, to - begin)
