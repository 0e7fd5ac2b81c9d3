# The arena: shared memory behind max-connections.
#
# Rules of this file: what happens once per process or listener; what happens once per connection
# is in the .pxd. No import of the package's Python modules, and of the native ones only _system.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlisten._system cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, MAP_FAILED, MAP_SHARED, MFD_CLOEXEC, PROT_READ, PROT_WRITE, close,
    eventfd, fl_and64, fl_cas32, fl_load32, fl_store32, fl_swap32, ftruncate, memfd_create, mmap,
    munmap, raise_errno, write,
)

import os

cdef enum:
    # The arena begins with this and its layout version; a process of another version must not join.
    ARENA_MAGIC = 0x666C3161  # "fl1a"
    ARENA_VERSION = 1
    # A cache line: rows start on one, so that two listeners never share.
    LINE = 64

# One bit per generation in Row.waiters.
MAX_GENERATIONS = 256


cdef struct ArenaHead:
    uint32_t magic
    uint32_t version
    uint32_t listeners
    uint32_t generations
    uint32_t row_size
    uint32_t spare[11]


# One per process generation, 64 bytes.
cdef struct Process:
    uint32_t pid          # 0: free
    uint32_t capacity     # connections that the process may hold
    uint64_t heartbeat    # CLOCK_MONOTONIC milliseconds of its last sign of life
    uint32_t spare[12]


# Without tp_clear: __dealloc__ closes what `wakeups` lists, also when a cycle of garbage ends.
@cython.no_gc_clear
cdef class Arena:
    """Shared memory with the connection counters of all listeners and processes.

    Lives in a memfd, so that processes that do not descend from its maker can attach to it. Per
    listener it has a row: the limit and one 32-bit counter per process generation, written only
    by that process. What a process held is given back by `heal` after its death, whatever
    instruction it died in.

    Args:
        listeners: number of rows, at least 1.
        generations: processes (more exactly: engines) that can take part at the same time,
            1 to 256.

    Raises:
        ValueError: a number is out of range.
        OSError: the kernel gave no memory or descriptor.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, uint32_t listeners, uint32_t generations=1):
        if listeners < 1:
            raise ValueError("an arena needs at least one listener")
        if not 1 <= generations <= MAX_GENERATIONS:
            raise ValueError(f"generations must be 1 to {MAX_GENERATIONS}, not {generations}")
        cdef int fd
        cdef ArenaHead *head
        cdef size_t row = self.row_size(generations)
        wakeups = []
        self.size = LINE + generations * sizeof(Process) + listeners * row
        fd = memfd_create(b"fastlisten-arena", MFD_CLOEXEC)
        if fd < 0:
            raise_errno("memfd_create")
        self.fd = fd
        if ftruncate(fd, <long>self.size) < 0:
            raise_errno("ftruncate of the arena")
        self.map()
        head = <ArenaHead *>self.base
        head.magic = ARENA_MAGIC
        head.version = ARENA_VERSION
        head.listeners = listeners
        head.generations = generations
        head.row_size = <uint32_t>row
        self.listeners = listeners
        self.generations = generations
        try:
            for _ in range(generations):
                fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
                if fd < 0:
                    raise_errno("eventfd")
                wakeups.append(fd)
        finally:
            self.set_wakeups(wakeups)

    @staticmethod
    def attach(int fd, wakeups):
        """Return the arena behind a descriptor received from its maker.

        Takes over `fd` and the event descriptors `wakeups` (one per generation, in order), unless
        it raises.

        Raises:
            ValueError: not an arena, or one of another version.
            OSError: the descriptor cannot be mapped.
        """
        cdef Arena self = Arena.__new__(Arena)
        cdef ArenaHead *head
        self.size = os.fstat(fd).st_size
        if self.size < LINE:
            raise ValueError("not an arena: too small")
        self.fd = fd
        try:
            self.map()
            head = <ArenaHead *>self.base
            if head.magic != ARENA_MAGIC or head.version != ARENA_VERSION:
                raise ValueError("not an arena of this version")
            # What lies beyond the end of the file would be SIGBUS at the first touch.
            if not 1 <= head.generations <= MAX_GENERATIONS \
                    or head.row_size != self.row_size(head.generations) \
                    or self.size != LINE + head.generations * sizeof(Process) \
                    + <size_t>head.listeners * head.row_size:
                raise ValueError("not an arena: its size does not fit its head")
            if len(wakeups) != head.generations:
                raise ValueError(f"{head.generations} wake-up descriptors expected")
        except BaseException:
            self.fd = -1
            raise
        self.listeners = head.listeners
        self.generations = head.generations
        self.set_wakeups(wakeups)
        return self

    cdef size_t row_size(self, uint32_t generations):
        return (sizeof(Row) + generations * sizeof(uint32_t) + LINE - 1) // LINE * LINE

    cdef int map(self) except -1:
        cdef void *base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if base == MAP_FAILED:
            raise_errno("mmap of the arena")
        self.base = <char *>base
        return 0

    cdef int set_wakeups(self, wakeups) except -1:
        self.wakeups = tuple(wakeups)
        self.wakeup_fds = <int *>calloc(max(1, len(self.wakeups)), sizeof(int))
        if self.wakeup_fds == NULL:
            raise MemoryError
        for i, fd in enumerate(self.wakeups):
            self.wakeup_fds[i] = fd
        return 0

    cdef Row *row_at(self, uint32_t listener):
        cdef ArenaHead *head = <ArenaHead *>self.base
        return <Row *>(self.base + LINE + self.generations * sizeof(Process)
                       + listener * head.row_size)

    cdef void *process_at(self, uint32_t generation):
        return self.base + LINE + generation * sizeof(Process)

    cdef int require(self, generation) except -1:
        if not 0 <= generation < self.generations:
            raise ValueError(f"generation must be 0 to {self.generations - 1}, not {generation}")
        return 0

    def join(self):
        """Take a free generation for an engine of this process and return its number.

        Raises:
            RuntimeError: all generations are taken.
        """
        cdef uint32_t i
        for i in range(self.generations):
            if fl_cas32(&(<Process *>self.process_at(i)).pid, 0, <uint32_t>os.getpid()):
                return i
        raise RuntimeError(f"all {self.generations} generations of the arena are taken")

    def heal(self, generation):
        """Give back all that a generation holds, and free it; return how many places that were.

        Call it only for a process that is gone (after waitpid), or for one's own generation when
        its engine is closed.
        """
        self.require(generation)
        cdef uint32_t i, own = generation
        cdef uint64_t found = 0, one = 1
        cdef uint32_t held
        cdef Row *row
        for i in range(self.listeners):
            row = self.row_at(i)
            fl_and64(&row.waiters[own // 64], ~(<uint64_t>1 << (own % 64)))
            held = fl_swap32(<uint32_t *>(row + 1) + own, 0)
            found += held
        # All, not only those that say they wait: the dead may have taken note of the waiters, or
        # given a place back, and not have come to ring.
        for i in range(self.generations):
            write(self.wakeup_fds[i], &one, sizeof(one))
        memset(<char *>self.process_at(own) + 4, 0, sizeof(Process) - 4)
        fl_store32(&(<Process *>self.process_at(own)).pid, 0)
        return found

    def pids(self):
        """Return the process ids that hold a generation, by generation; 0 for a free one."""
        return tuple(
            fl_load32(&(<Process *>self.process_at(i)).pid) for i in range(self.generations)
        )

    def places(self, listener, generation):
        """Return the counter of one listener as one generation uses it."""
        self.require(generation)
        if not 0 <= listener < self.listeners:
            raise ValueError(f"listener must be 0 to {self.listeners - 1}, not {listener}")
        cdef Places places = Places.__new__(Places)
        places.arena = self
        places.listener = listener
        places.generation = generation
        places.row = self.row_at(places.listener)
        places.cells = <uint32_t *>(places.row + 1)
        return places

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.base != NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            close(self.fd)
        if self.wakeup_fds != NULL:
            if self.wakeups is not None:
                for i in range(len(self.wakeups)):
                    close(self.wakeup_fds[i])
            free(self.wakeup_fds)


cdef class Places:
    """The places of one listener, counted for one generation. Made by `Arena.places`."""

    @property
    def limit(self):
        """Most places that all generations together may hold; 0 for no limit. Live."""
        return fl_load32(&self.row.limit)

    @limit.setter
    def limit(self, uint32_t value):
        fl_store32(&self.row.limit, value)
        waiters_ring(self.row, self.arena.generations, self.arena.wakeup_fds)

    @property
    def count(self):
        """Places held at the moment by all generations (others may be racing: a snapshot)."""
        return places_sum(self.cells, self.arena.generations)

    @property
    def held(self):
        """Places held by this generation."""
        return fl_load32(&self.cells[self.generation])

    def take(self):
        """Take one place; False when the limit is reached."""
        return place_take(self.row, self.cells, self.generation, self.arena.generations)

    def give(self):
        """Give one place back and wake whoever waits for it."""
        if fl_load32(&self.cells[self.generation]) == 0:
            raise ValueError("this generation holds no place")
        place_give(self.row, self.cells, self.generation, self.arena.generations,
                   self.arena.wakeup_fds)
