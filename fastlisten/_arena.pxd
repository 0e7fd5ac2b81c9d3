# The arena: shared memory that counts the places of all listeners over all processes.
#
# Rules of this file: the layout of the memory, and what is done to it for each connection. That is
# inline, so that accepting stays free of calls across modules, and its constants are enums, which
# the compiler of another module sees as numbers.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from fastlisten._system cimport (
    fl_add32, fl_load32, fl_load64, fl_pause, fl_sub32, fl_swap64, write,
)


cdef enum:
    # Withdrawing and trying again when several race for the last place. Two racers can both see a
    # sum over the limit; the one that withdraws last finds the place free when it looks again.
    # Eight rounds made false refusals unmeasurable with 4 processes racing for 1 place.
    TAKE_ROUNDS = 8


# One row of the arena: who holds how many places of one listener.
cdef struct Row:
    uint32_t limit        # 0: no limit
    uint32_t spare[7]
    uint64_t waiters[4]   # one bit per generation that sleeps until a place is given back
    # followed by one uint32_t cell per generation


cdef inline uint32_t places_sum(uint32_t *cells, uint32_t generations) noexcept nogil:
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(generations):
        total += fl_load32(&cells[i])
    return total


cdef inline bint place_take(Row *row, uint32_t *cells, uint32_t generation,
                            uint32_t generations) noexcept nogil:
    """Announce one more, look at the sum, keep it or withdraw.

    The announcements and the sums are sequentially consistent: of all that announce at once the
    last one sees all the others, so the places kept never exceed the limit.
    """
    cdef int attempt
    cdef uint32_t limit
    for attempt in range(TAKE_ROUNDS):
        fl_add32(&cells[generation], 1)
        limit = fl_load32(&row.limit)
        if limit == 0 or places_sum(cells, generations) <= limit:
            return True
        fl_sub32(&cells[generation], 1)
        if places_sum(cells, generations) >= limit:
            return False
        # Someone else withdrew too. Unequal pauses keep the racers from meeting again.
        fl_pause((generation + 1) * 32 * (attempt + 1))
    return False


cdef inline void waiters_ring(Row *row, uint32_t generations,
                              const int *wakeups) noexcept nogil:
    cdef uint32_t word, bit
    cdef uint64_t bits, one = 1
    for word in range((generations + 63) // 64):
        if fl_load64(&row.waiters[word]) == 0:
            continue
        bits = fl_swap64(&row.waiters[word], 0)
        for bit in range(64):
            if bits & (one << bit):
                # An eventfd that is full already has woken its reader: EAGAIN is as good.
                write(wakeups[word * 64 + bit], &one, 8)


cdef inline void place_give(Row *row, uint32_t *cells, uint32_t generation, uint32_t generations,
                            const int *wakeups) noexcept nogil:
    fl_sub32(&cells[generation], 1)
    waiters_ring(row, generations, wakeups)


cdef class Arena:
    cdef readonly int fd
    cdef readonly uint32_t listeners
    cdef readonly uint32_t generations
    cdef readonly tuple wakeups
    cdef char *base
    cdef size_t size
    cdef int *wakeup_fds
    cdef size_t row_size(self, uint32_t generations)
    cdef int map(self) except -1
    cdef int set_wakeups(self, wakeups) except -1
    cdef Row *row_at(self, uint32_t listener)
    cdef void *process_at(self, uint32_t generation)
    cdef int require(self, generation) except -1


@cython.final
cdef class Places:
    cdef readonly Arena arena
    cdef readonly uint32_t listener
    cdef readonly uint32_t generation
    cdef Row *row
    cdef uint32_t *cells
