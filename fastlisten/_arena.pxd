# The arena: shared memory that counts the places of all listeners over all processes.
#
# Rules of this file: the layout of the memory, and what is done to it once per connection. That is
# inline, so that accepting makes no calls into another module. Constants are enums, because the C
# compiler of another module sees those as numbers.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from fastlisten._system cimport (
    fl_add32, fl_load32, fl_load64, fl_pause, fl_sub32, fl_swap64, write,
)


cdef enum:
    # How often a member withdraws and tries again when several race for the last place. Two racers
    # can both see a sum over the limit; the one that withdraws last finds the place free when it
    # looks again. With eight rounds, false refusals of 4 processes racing for 1 place were too rare
    # to measure.
    TAKE_ROUNDS = 8


# A process that takes part, from its start to its end: one cache line.
cdef struct Member:
    uint32_t pid          # 0: free
    uint32_t capacity     # reserved: how many connections the process may hold
    uint64_t heartbeat    # reserved: CLOCK_MONOTONIC milliseconds of its last sign of life
    uint32_t spare[12]


# One listener's row in the arena: its limit, and who holds how many places under it.
cdef struct Row:
    uint32_t limit        # 0: no limit
    uint32_t spare[7]
    uint64_t waiters[4]   # one bit per member that sleeps until a place is given back
    # followed by one uint32_t cell per member


# A row as one member sees it: what taking and giving back a place needs, in one structure.
cdef struct PlaceCounter:
    Row *row              # NULL: nothing is counted
    uint32_t *cells       # of all members; only its own is written
    uint32_t member
    uint32_t members
    const int *wakeups    # an eventfd for each member


cdef inline uint32_t places_held(const PlaceCounter *counter) noexcept nogil:
    """Sum the cells of all members."""
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(counter.members):
        total += fl_load32(&counter.cells[i])
    return total


cdef inline bint take_place(const PlaceCounter *counter) noexcept nogil:
    """Announce one more, look at the sum, keep the place or withdraw.

    Announcements and sums are sequentially consistent: of all members that announce at once, the
    last one sees all the others, so the places kept never exceed the limit.
    """
    cdef int attempt
    cdef uint32_t limit
    for attempt in range(TAKE_ROUNDS):
        fl_add32(&counter.cells[counter.member], 1)
        limit = fl_load32(&counter.row.limit)
        if limit == 0 or places_held(counter) <= limit:
            return True
        fl_sub32(&counter.cells[counter.member], 1)
        if places_held(counter) >= limit:
            return False
        # Another member withdrew too. Unequal pauses keep the two from meeting again.
        fl_pause((counter.member + 1) * 32 * (attempt + 1))
    return False


cdef inline void wake_waiters(const PlaceCounter *counter) noexcept nogil:
    """Wake the members that wait for a place of this row."""
    cdef uint32_t word, bit
    cdef uint64_t bits, one = 1
    for word in range((counter.members + 63) // 64):
        if fl_load64(&counter.row.waiters[word]) == 0:
            continue
        bits = fl_swap64(&counter.row.waiters[word], 0)
        for bit in range(64):
            if bits & (one << bit):
                # EAGAIN means that the eventfd is full, so its reader has been woken already.
                write(counter.wakeups[word * 64 + bit], &one, 8)


cdef inline void give_place(const PlaceCounter *counter) noexcept nogil:
    """Give one place back and wake the members that wait for it."""
    fl_sub32(&counter.cells[counter.member], 1)
    wake_waiters(counter)


cdef class Arena:
    cdef readonly int fd
    cdef readonly uint32_t listeners
    cdef readonly uint32_t members
    cdef readonly tuple wakeups
    cdef char *base
    cdef size_t size
    cdef int *wakeup_fds
    cdef size_t row_size(self)
    cdef int map(self) except -1
    cdef int set_wakeups(self, wakeups) except -1
    cdef Row *row_at(self, uint32_t listener)
    cdef Member *member_at(self, uint32_t member)
    cdef int require(self, member) except -1


@cython.final
cdef class Places:
    cdef readonly Arena arena
    cdef readonly uint32_t listener
    cdef PlaceCounter counter
