# The arena: shared memory that counts the places of all listeners over all processes.
#
# Rules of this file: the layout of the memory, and what is done to it once per connection. That is
# inline, so that accepting makes no calls into another module unless somebody has to be woken.
# Constants are enums, because the C compiler of another module sees those as numbers. Who changes
# the layout changes ARENA_VERSION.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastlisten._system cimport fl_add32, fl_load32, fl_load64, fl_pause, fl_sub32


cdef enum:
    # How often a member withdraws and tries again when several race for the last place. Two racers
    # can both see a sum over the limit; the one that withdraws last finds the place free when it
    # looks again. With eight rounds, false refusals of 4 processes racing for 1 place were too rare
    # to measure.
    TAKE_ROUNDS = 8


cdef struct ArenaHead:
    uint32_t magic
    uint32_t version
    uint32_t members
    uint32_t rows             # so many exist; grows, never shrinks
    uint32_t row_size
    uint32_t notices          # how many Notice there are
    uint32_t address_buckets  # how many AddressBucket each member has; 0: no limit per address
    uint32_t spare
    uint64_t hash_key[2]      # reserved for the keys of addresses and the cells of accounts
    uint32_t spare_too[4]


cdef enum MemberFlag:
    MEMBER_ACCEPTING = 1  # it has listening sockets that could accept now
    MEMBER_ON_DUTY = 2    # and the kernel tells it about new connections


# A process that takes part, from its start to its end: one cache line, written only by that process
# (and by who heals it).
cdef struct Member:
    uint32_t pid          # 0: free
    uint32_t capacity     # how many connections the process may hold; 0: it serves none yet
    uint64_t heartbeat    # CLOCK_MONOTONIC in milliseconds when it last showed that it is alive
    uint32_t load         # its connections in flight plus its recent accepts
    uint32_t flags        # MEMBER_...
    uint64_t accepted     # how many it has accepted on shared sockets since it joined
    uint32_t spare[8]


# Reserved for changes in a mail store. Whoever has changed an account adds one to `changes` of the
# account's cell and wakes the members that have their bit in `watchers`.
cdef struct Notice:
    uint64_t changes
    uint64_t watchers[4]
    uint64_t spare[3]


# Reserved for limits per client address: each member has a hash table of such buckets, one cache
# line each, that only it writes. The connections of an address are the sum over all members.
cdef struct AddressBucket:
    uint64_t keys[5]      # SipHash of the scope of the limit and the address; 0: free
    uint32_t counts[5]
    uint32_t spare


cdef enum RowState:
    ROW_FREE = 0
    ROW_USED = 1
    ROW_RETIRED = 2       # free as soon as nobody holds a place of it


# What is counted under one limit: the limit, and who holds how many places.
cdef struct Row:
    uint32_t limit        # 0: no limit
    uint32_t state        # RowState; only the process that manages the rows looks at it
    uint32_t spare[6]
    uint64_t waiters[4]   # one bit per member that sleeps until a place is given back
    # followed by one uint32_t cell per member


# A row as one member sees it: what taking and giving back a place needs, in one structure.
cdef struct PlaceCounter:
    Row *row              # NULL: nothing is counted
    uint32_t *cells       # of all members; only its own is written
    uint32_t member
    uint32_t members
    uint32_t workers      # how many members accept at a time; the others leave or replace them
    bint in_turn          # wake them in turn: those that wait have clients of their own
    Member *processes     # of all members
    const int *wakeups    # an eventfd for each member


# What a listener's connections hold of server.total-connections, as one member sees it. They take
# from the listener's reserve first, then from what all listeners share.
cdef struct TotalCounter:
    PlaceCounter shared
    PlaceCounter reserve  # a limit of 0: the listener has none
    uint32_t shared_held  # shared places that this listener's connections in this process hold


cdef inline uint32_t places_held(const PlaceCounter *counter) noexcept nogil:
    """Sum the cells of all members."""
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(counter.members):
        total += fl_load32(&counter.cells[i])
    return total


cdef inline bint take_below(const PlaceCounter *counter, bint zero_is_unlimited) noexcept nogil:
    """Announce one more, look at the sum, keep the place or withdraw.

    Announcements and sums are sequentially consistent: of all members that announce at once, the
    last one sees all the others, so the places kept never exceed the limit.
    """
    cdef int attempt
    cdef uint32_t limit
    for attempt in range(TAKE_ROUNDS):
        fl_add32(&counter.cells[counter.member], 1)
        limit = fl_load32(&counter.row.limit)
        if zero_is_unlimited and limit == 0 or places_held(counter) <= limit:
            return True
        fl_sub32(&counter.cells[counter.member], 1)
        if places_held(counter) >= limit:
            return False
        # Another member withdrew too. Unequal pauses keep the two from meeting again.
        fl_pause((counter.member + 1) * 32 * (attempt + 1))
    return False


cdef inline bint take_place(const PlaceCounter *counter) noexcept nogil:
    """Take a place; return False if the limit is reached."""
    return take_below(counter, True)


cdef inline bint anybody_waits(const PlaceCounter *counter) noexcept nogil:
    """Whether a member sleeps until a place of this row is given back."""
    cdef uint32_t word
    for word in range((counter.members + 63) // 64):
        if fl_load64(&counter.row.waiters[word]):
            return True
    return False


# Called only if somebody waits, so these need not be inline.
cdef void wake_one(const PlaceCounter *counter) noexcept nogil
cdef void wake_all(const PlaceCounter *counter) noexcept nogil


cdef inline void give_place(const PlaceCounter *counter) noexcept nogil:
    """Give one place back and wake a member that waits for it."""
    fl_sub32(&counter.cells[counter.member], 1)
    if anybody_waits(counter):
        wake_one(counter)


cdef inline int64_t reserve_left(const TotalCounter *total) noexcept nogil:
    """Return how many places of the reserve are free; less than 0 if this one is one too many.

    A reload that adds a listener with a reserve lowers the limit of what all share. While more than
    that is still held, the excess is taken off the reserve, so that the total is never exceeded.
    """
    cdef int64_t left = fl_load32(&total.reserve.row.limit)
    cdef int64_t beyond = places_held(&total.shared)
    left -= places_held(&total.reserve)
    beyond -= fl_load32(&total.shared.row.limit)
    return left - beyond if beyond > 0 else left


cdef inline bint take_total(TotalCounter *total) noexcept nogil:
    """Take a place of the listener's reserve, else one of those that all listeners share."""
    if fl_load32(&total.reserve.row.limit) and take_below(&total.reserve, False):
        if reserve_left(total) >= 0:
            return True
        # Nobody is woken: there is nothing to be had, and two that wait would wake each other.
        fl_sub32(&total.reserve.cells[total.reserve.member], 1)
    if take_place(&total.shared):
        total.shared_held += 1
        return True
    return False


cdef inline void give_total(TotalCounter *total) noexcept nogil:
    """Give back a shared place if the listener holds one here, else one of its reserve.

    So other listeners get what they can use, and the reserve stays with its listener.
    """
    if total.shared_held:
        total.shared_held -= 1
        give_place(&total.shared)
    else:
        give_place(&total.reserve)


cdef inline bint is_total_reached(const TotalCounter *total) noexcept nogil:
    """Whether neither a place of the reserve nor a shared one is free."""
    return (places_held(&total.shared) >= fl_load32(&total.shared.row.limit)
            and reserve_left(total) <= 0)


cdef class Arena:
    cdef readonly int fd
    cdef readonly uint32_t members
    cdef readonly tuple wakeups
    cdef char *base
    cdef size_t offset      # of the first row
    cdef size_t row_size
    cdef int *wakeup_fds
    cdef size_t mapping_size(self)
    cdef int map(self, size_t offset) except -1
    cdef int set_wakeups(self, wakeups) except -1
    cdef ArenaHead *head(self)
    cdef Row *row_at(self, uint32_t row)
    cdef uint32_t *cells_of(self, uint32_t row)
    cdef uint64_t sum_of(self, uint32_t row)
    cdef Member *member_at(self, uint32_t member)
    cdef int require_member(self, member) except -1
    cdef int require_row(self, row) except -1
    cdef int fill(self, PlaceCounter *counter, row, member) except -1


@cython.final
cdef class Places:
    cdef readonly Arena arena
    cdef readonly uint32_t row
    cdef PlaceCounter counter
    cdef TotalCounter total    # without rows unless `count_total` was called
    cdef void wake_in_turn(self) noexcept
