# The engine of an event loop: it accepts connections, keeps their slots, limits and deadlines.
#
# Rules of this file: what happens to every connection before a protocol sees it. What happens once
# per start is written in Python. No import of the package's Python modules. Functions marked nogil
# touch no Python object. The failure of each C call is handled right after the call.
#
#   listening socket --epoll--> accept_batch --place free?--no--> refuse --> PARKED --> closed
#                                    | yes
#                                    v
#                  lazy: LAZY --first byte--> OPEN <---------- ACCEPTED :eager
#                          | EOF, reset,        |
#                          | deadline           v close
#                          v                 LINGERING (socket.linger) --> closed
#                        closed
#
# The states (SLOT_...) are those of a descriptor's slot. A connection holds its place from accept
# to close(2), and only one function calls close(2) for it: Engine.release.

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport (
    EAGAIN, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN,
    ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO,
    ETIMEDOUT, errno,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastlisten._arena cimport (
    MEMBER_ACCEPTING, MEMBER_ON_DUTY, TAKE_ROUNDS, Arena, PlaceCounter, Places, anybody_waits,
    give_place, give_total, is_total_reached, places_held, take_place, take_total, wake_one,
)
from fastlisten._system cimport (
    AF_INET, AF_INET6, CLOCK_MONOTONIC, EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, MAP_ANONYMOUS, MAP_FAILED,
    MAP_NORESERVE, MAP_PRIVATE, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, O_CLOEXEC, O_RDONLY,
    PROT_READ, PROT_WRITE, SHUT_WR, SIOCOUTQ, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET, SO_LINGER,
    TFD_CLOEXEC, TFD_NONBLOCK, accept4, close, epoll_create1, epoll_ctl, epoll_event, epoll_wait,
    fl_address, fl_load32, fl_load64, fl_microseconds, fl_or64, fl_poll, fl_set_timer,
    fl_take_bit64, fl_walltime, getpeername, getsockopt, inet_ntop, ioctl, linger_t, mmap, munmap,
    open,
    raise_errno, read, recv, send, setsockopt, shutdown, sockaddr, sockaddr_storage, socklen_t,
    timerfd_create, write,
)

import os
import resource
import warnings
import weakref
from contextvars import copy_context

# --- option batches ---------------------------------------------------------------------------

cdef struct OptionEntry:
    int level
    int name
    uint32_t size
    char value[32]


cdef uint32_t options_apply(OptionEntry *table, uint32_t size, int fd) noexcept nogil:
    """Set all options; return how many the kernel rejected."""
    cdef uint32_t i, failed = 0
    for i in range(size):
        if setsockopt(fd, table[i].level, table[i].name, table[i].value, table[i].size) < 0:
            failed += 1
    return failed


cdef class OptionBatch:
    """Socket options, prepared once and set in one call.

    Args:
        entries: (level, name, value) for setsockopt(2); the value is the bytes that the kernel
            gets, at most 32.
    """

    def __init__(self, entries):
        cdef OptionEntry *entry
        cdef bytes value
        self.entries = tuple(
            (int(level), int(name), bytes(value)) for level, name, value in entries
        )
        self.size = <uint32_t>len(self.entries)
        self.table = calloc(max(1, self.size), sizeof(OptionEntry))
        if self.table == NULL:
            raise MemoryError
        for i, (level, name, value) in enumerate(self.entries):
            if len(value) > 32:
                raise ValueError(f"option value of {len(value)} bytes, at most 32 allowed")
            entry = <OptionEntry *>self.table + <Py_ssize_t>i
            entry.level = level
            entry.name = name
            entry.size = <uint32_t>len(value)
            memcpy(entry.value, PyBytes_AS_STRING(value), <size_t>len(value))

    def __len__(self):
        return self.size

    def apply(self, int fd):
        """Set every option on a socket, also after one of them has failed.

        Returns:
            (index of the entry, errno) for each option that the kernel rejected.
        """
        cdef OptionEntry *table = <OptionEntry *>self.table
        cdef uint32_t i
        failures = []
        for i in range(self.size):
            if setsockopt(fd, table[i].level, table[i].name, table[i].value, table[i].size) < 0:
                failures.append((i, errno))
        return tuple(failures)

    def read(self, int fd):
        """Return each option's value as the kernel reports it, in bytes; None if it does not."""
        cdef OptionEntry *table = <OptionEntry *>self.table
        cdef uint32_t i
        cdef char value[64]
        cdef socklen_t size
        found = []
        for i in range(self.size):
            size = sizeof(value)
            if getsockopt(fd, table[i].level, table[i].name, value, &size) < 0:
                found.append(None)
            else:
                found.append(PyBytes_FromStringAndSize(value, size))
        return tuple(found)

    def __dealloc__(self):
        free(self.table)


# --- the engine -------------------------------------------------------------------------------

cdef enum:
    # Events per epoll_wait. The next one reports the rest (level-triggered).
    MAX_EVENTS = 512
    # Accepts per turn over all listeners; the time (SLICE) is bounded too.
    MAX_ACCEPTS = 256
    # The same on sockets that other processes accept on too. Whoever accepts keeps the connection,
    # so this is how much more of a burst one process may get than the others.
    SHARED_ACCEPTS = 16
    # Each listener may accept at least this many per turn, however many others are ready.
    MIN_ACCEPTS = 8
    # How long (us) a turn may accept, and again how long it may call protocols. The loop's timers
    # wait for both, and for the connection_lost of all connections that ended meanwhile. A turn
    # costs about 3 us (an epoll_wait, an iteration of the host loop), so shorter slices would gain
    # little (python -m benchmarks --only lag).
    SLICE = 200
    # Parked refusals: how many at a time (at most a quarter of the capacity), for how long (ms),
    # and how many bytes are read from each.
    MAX_PARKED = 1024
    PARKED_RING = 4096
    PARKED_TIME = 2000
    PARKED_BYTES = 16384
    # At least this long (ms) between two sweeps. A sweep scans the table, and timeouts are seconds.
    SWEEP_PAUSE = 50
    # A sweep that is LATE (ms) after no turn for STANDSTILL (ms) means that the process stood
    # still: it was stopped by a signal, its machine was suspended, or a handler blocked. A loop
    # that is merely busy still takes turns. Deadlines are put off by the time lost, at most by
    # STANDSTILL_MOST (ms).
    LATE = 250
    STANDSTILL = 1000
    STANDSTILL_MOST = 10000
    # How long (ms) to pause when the process has run out of descriptors or memory: at first, at
    # most.
    BACKOFF_FIRST = 5
    BACKOFF_LAST = 1000
    # An episode of overload is logged when it ends, or after this long (ms).
    EPISODE = 1000
    # How long (ms) not to log again that the capacity is reached, which may last for hours.
    CAPACITY_SILENCE = 60000
    # How often (ms) one of the processes that wait for a place looks by itself whether one is free:
    # the process that was woken for it may be stopped, or busy. They take turns (`next_turn`), but
    # each looks after LOOK_LAST (ms) at the latest.
    LOOK_PAUSE = 50
    LOOK_LAST = 1000
    # How many processes accept at a time (Engine.share_load): so many at least, and one in so many,
    # those with the least load. More would all be woken for each connection.
    DUTY_LEAST = 2
    DUTY_SHARE = 8
    # Who has more than the least load, by more than this and a 32nd of it, does not go on duty, and
    # hands over if it is. Less would hand over with every connection.
    LOAD_SLACK = 2
    # The accepts that count as recent are halved after this long (ms).
    RECENT_HALF = 128
    # How often (ms) one of the processes that are not on duty looks for clients that nobody
    # accepts: at first, and at least, while nobody accepts any. They take turns (`next_turn`): if
    # each looked by itself, 53 processes would wake up 47 times for each of 500 clients a second.
    DUTY_LOOK_FIRST = 4
    DUTY_LOOK_LAST = 64
    # Who has found some looks again after this long (ms), and accepts if they are still there.
    DUTY_LOOK_AGAIN = 2
    # How often (ms) a process shows that it is alive, and after how long without it the others no
    # longer count on it.
    PULSE = 250
    PULSE_MISSED = 600
    # How many connections are refused with the reserve descriptor per pause.
    RESERVE_REFUSALS = 64
    # How many descriptors of the process's limit are left to handlers.
    KEPT_FOR_HANDLERS = 256
    # The largest table of slots: 4 Mi descriptors, 128 MiB of address space, touched only as used.
    MAX_TABLE = 4194304
    # Log records kept for Python, and how long (ms) they may wait for it.
    RECORDS = 1024
    RECORD_PAUSE = 250
    # How many records to look back for one to add a refusal or an error to.
    RECORDS_SEARCHED = 16


# Kinds of log records. From RECORD_REFUSED on, records of one kind and listener are added up within
# a batch.
RECORD_OPENED = R_OPENED
RECORD_CLOSED = R_CLOSED
RECORD_REFUSED = R_REFUSED
RECORD_TIMED_OUT = R_TIMED_OUT
RECORD_OVERLOAD = R_OVERLOAD
RECORD_CAPACITY = R_CAPACITY
RECORD_BROKEN = R_BROKEN
RECORD_HANDSHAKE = R_HANDSHAKE
RECORD_TOTAL = R_TOTAL


cdef struct LogRecord:
    uint64_t time         # wall clock, milliseconds
    int64_t value         # a count; R_CAPACITY: the capacity; R_BROKEN: the errno
    int32_t detail        # R_OVERLOAD, R_BROKEN: an errno; R_REFUSED: the limit; else 0
    uint16_t acceptor
    uint16_t port
    uint8_t kind
    uint8_t flags
    uint8_t address[16]


cdef object engines = weakref.WeakSet()


cdef int64_t default_capacity():
    """Return the soft limit of descriptors, less those open now, less what handlers may need."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    cdef int64_t limit = MAX_TABLE if soft == resource.RLIM_INFINITY else min(soft, MAX_TABLE)
    try:
        taken = len(os.listdir("/proc/self/fd"))
    except OSError:
        taken = 0  # no /proc: what is reserved for handlers must be enough
    return max(1, limit - min(KEPT_FOR_HANDLERS, limit // 4) - taken)


cdef str text_of(const uint8_t *address, int flags):
    cdef char text[64]
    if flags & FLAG_INET:
        inet_ntop(AF_INET, address, text, sizeof(text))
    elif flags & FLAG_INET6:
        inet_ntop(AF_INET6, address, text, sizeof(text))
    else:
        return ""
    return (<bytes>text).decode("ascii")


cdef inline uint32_t duty_of(uint32_t processes) noexcept nogil:
    """Return how many of so many processes are told about new connections."""
    return max(<uint32_t>DUTY_LEAST, processes // DUTY_SHARE)


cdef inline uint64_t next_turn(uint64_t now, uint64_t pause, uint64_t rank,
                               uint64_t count) noexcept nogil:
    """Return when a process has its next turn, if so many take turns, one every `pause` ms.

    All have the same clock, so they need not agree on when to begin.
    """
    cdef uint64_t whole = pause * count
    return now + whole - (now + whole - pause * rank) % whole


cdef inline uint64_t slot_key(const Slot *slot, int fd) noexcept nogil:
    """Return a key for a slot that is valid until its descriptor is closed."""
    return (<uint64_t>slot.generation << 32) | <uint32_t>fd


cdef inline bint greeted(const AcceptorState *state, const Slot *slot) noexcept nogil:
    """Whether all of the greeting has been sent."""
    return slot.offset == state.replies[REPLY_GREETING].size


cdef void send_farewell(const AcceptorState *state, const Slot *slot, int fd,
                        int kind) noexcept nogil:
    """Say farewell to a silent client, unless it is still in the middle of the greeting."""
    if greeted(state, slot) and state.replies[kind].size:
        send(fd, state.replies[kind].text, state.replies[kind].size, MSG_NOSIGNAL)


cdef inline void fill_slot(Engine engine, const AcceptorState *state, int fd,
                           const sockaddr_storage *peer) noexcept nogil:
    """Record the acceptor of a new connection, and its peer's address.

    A free slot has no deadline; everything else in it may be the last connection's.
    """
    cdef Slot *slot = &engine.table[fd]
    cdef uint32_t scope
    cdef int length = fl_address(peer, slot.address, &slot.port, &scope)
    slot.flags = FLAG_INET if length == 4 else FLAG_INET6 if length == 16 else 0
    slot.offset = 0
    slot.acceptor = state.index
    if scope:
        engine.extra[fd].scope = scope
        slot.flags |= FLAG_EXTRA


cdef inline void give_back(AcceptorState *state) noexcept nogil:
    """Give back the places of one connection, in the reverse order of taking them."""
    if state.total != NULL:
        give_total(state.total)
    give_place(&state.places)


cdef inline bint is_limit_reached(const PlaceCounter *counter) noexcept nogil:
    """Whether no place of a row is free."""
    cdef uint32_t limit = fl_load32(&counter.row.limit)
    return limit != 0 and places_held(counter) >= limit


cdef inline bint is_free(AcceptorState *state) noexcept nogil:
    """Whether a connection could get its places now."""
    return not is_limit_reached(&state.places) \
        and (state.total == NULL or not is_total_reached(state.total))


cdef inline bint give_up_row(const PlaceCounter *counter) noexcept nogil:
    return fl_take_bit64(&counter.row.waiters[counter.member // 64],
                         <uint64_t>1 << (counter.member % 64))


cdef inline bint give_up(AcceptorState *state) noexcept nogil:
    """Ask not to be woken for places any more; return whether this process had asked for it."""
    cdef bint asked = give_up_row(&state.places)
    if state.total != NULL:
        asked |= give_up_row(&state.total.reserve)
        asked |= give_up_row(&state.total.shared)
    return asked


cdef inline void queue_up(const PlaceCounter *counter) noexcept nogil:
    """Ask to be woken when a place of a row is given back."""
    fl_or64(&counter.row.waiters[counter.member // 64], <uint64_t>1 << (counter.member % 64))


cdef inline void count_connection(Engine engine, AcceptorState *state, int fd) noexcept nogil:
    """Count a new connection, whose slot is filled. Engine.release takes it off the count."""
    engine.table[fd].state = SLOT_ACCEPTED
    if fd >= <int>engine.top:
        engine.top = fd + 1
    engine.open += 1
    state.active += 1
    state.connections += 1
    state.accepted += 1
    if engine.record_mask & 1 << R_OPENED:
        engine.record(R_OPENED, state, fd, 0)


cdef class Engine:
    """What serves the connections of one event loop: an epoll set, a table of slots, deadlines.

    The loop needs `add_reader` (uvloop's and asyncio's selector loop have it) and need not be
    running yet. Not thread-safe: everything is called in the loop's thread. An engine does not
    survive a fork: the child closes its copies of all descriptors, and the parent's engine is not
    affected.

    Args:
        loop: the event loop.
        capacity: how many connections this process may have, parked refusals included; accepting
            stops there. Default: the soft RLIMIT_NOFILE, less the descriptors open now, less
            256 for handlers (or a fourth of the limit, if that is less).

    Attributes:
        loop: as given.
        fd: the epoll descriptor.
        open: descriptors of connections in use now.
        capacity: as above; `set_capacity` changes it.
        sink: called with (records, dropped): log records as tuples (kind, time in seconds,
            acceptor, address, port, value, detail), and how many were lost since the last call.
        closed: whether `close` was called.
    """

    def __cinit__(self):
        self.fd = self.timer = self.reserve = self.listen_set = -1

    def __init__(self, loop, capacity=None):
        cdef void *memory
        close_abandoned()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.loop = loop
        self.table_size = MAX_TABLE if hard == resource.RLIM_INFINITY else min(hard, MAX_TABLE)
        self.capacity = default_capacity() if capacity is None else capacity
        # One mapping that never moves: Slots, SlotExtras, the buffer for receiving.
        memory = mmap(NULL, self.mapping_size(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if memory == MAP_FAILED:
            raise_errno("mmap of the table of slots")
        self.table = <Slot *>memory
        self.extra = <SlotExtra *>(self.table + self.table_size)
        self.buffer = <char *>(self.extra + self.table_size)
        self.view = PyMemoryView_FromMemory(self.buffer, RECEIVE_SIZE, PyBUF_WRITE)
        self.events = calloc(MAX_EVENTS, sizeof(epoll_event))
        self.accepted = <int *>calloc(MAX_ACCEPTS + SHARED_ACCEPTS, sizeof(int))
        self.parked = <uint64_t *>calloc(PARKED_RING, sizeof(uint64_t))
        self.records = calloc(RECORDS, sizeof(LogRecord))
        if self.events == NULL or self.accepted == NULL or self.parked == NULL \
                or self.records == NULL:
            raise MemoryError
        self.endpoints = []
        self.owners = []
        self.wakeups = {}
        self.overload_pause = BACKOFF_FIRST
        self.record_mask = ~(1 << R_OPENED | 1 << R_CLOSED)
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise_errno("epoll_create1")
        self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.timer < 0:
            raise_errno("timerfd_create")
        self.reserve = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
        if self.reserve < 0:
            raise_errno("open of /dev/null")
        self.watch_system(self.timer)
        self.listen_set = self.fd
        self.last_turn = self.tick()
        loop.add_reader(self.fd, self._wake)
        engines.add(self)

    cdef size_t mapping_size(self):
        return self.table_size * (sizeof(Slot) + sizeof(SlotExtra)) + RECEIVE_SIZE

    cdef int watch_system(self, int fd) except -1:
        """Add one of the engine's own descriptors to the epoll set."""
        if <uint32_t>fd >= self.table_size:
            raise OSError(EMFILE, "descriptor beyond the table of slots")
        self.top = max(self.top, <uint32_t>fd + 1)
        self.table[fd].state = SLOT_SYSTEM
        if self.watch(fd, FLAG_IN) < 0:
            self.table[fd].state = SLOT_FREE
            raise_errno("epoll_ctl")
        return 0

    # -- time and the epoll set

    cdef uint64_t tick(self) noexcept nogil:
        """Read the clock; return its milliseconds, which are never 0."""
        self.now = fl_microseconds() // 1000 + 1
        return self.now

    cdef int watch(self, int fd, int flags) noexcept nogil:
        """Wait for FLAG_IN, FLAG_OUT, both, or (0) only for the loss of the connection.

        Returns -1 with errno set if the kernel refuses.
        """
        cdef Slot *slot = &self.table[fd]
        cdef epoll_event event
        cdef int operation
        if slot.flags & FLAG_REGISTERED:
            if slot.flags & (FLAG_IN | FLAG_OUT) == flags:
                return 0
            operation = EPOLL_CTL_MOD
        else:
            operation = EPOLL_CTL_ADD
        event.events = (EPOLLIN if flags & FLAG_IN else 0) | (EPOLLOUT if flags & FLAG_OUT else 0)
        if flags & FLAG_IN:
            # Tells a first byte, or the last record, from the end of input without a system call.
            event.events |= EPOLLRDHUP
        if flags == 0:
            # Errors and hang-ups cannot be masked. Level-triggered, they would be reported again
            # and again; edge-triggered, they are reported once.
            event.events = EPOLLET
        event.data.u64 = slot_key(slot, fd)
        if epoll_ctl(self.fd, operation, fd, &event) < 0:
            return -1
        slot.flags = (slot.flags & ~(FLAG_IN | FLAG_OUT)) | FLAG_REGISTERED | flags
        return 0

    cdef void unwatch(self, int fd) noexcept nogil:
        """Take a descriptor out of the epoll set."""
        cdef Slot *slot = &self.table[fd]
        cdef epoll_event event
        if slot.flags & FLAG_REGISTERED:
            slot.flags &= ~(FLAG_REGISTERED | FLAG_IN | FLAG_OUT)
            epoll_ctl(self.fd, EPOLL_CTL_DEL, fd, &event)

    cdef void set_deadline(self, int fd, uint32_t milliseconds) noexcept nogil:
        """Set a connection's deadline to so many milliseconds from now; 0 for none."""
        cdef uint64_t when
        cdef uint32_t low
        if milliseconds == 0:
            self.table[fd].deadline = 0
            return
        # One more, because part of the current millisecond has passed.
        when = self.now + milliseconds + 1
        low = <uint32_t>when
        self.table[fd].deadline = low if low else 1
        if self.next_sweep == 0 or when < self.next_sweep:
            self.next_sweep = when
            self.arm_timer(when)

    cdef void arm_timer(self, uint64_t when) noexcept nogil:
        """Make the timer fire at `when`, or earlier if it is set to an earlier time."""
        if self.armed and self.armed <= when:
            return
        self.armed = when
        fl_set_timer(self.timer, when - self.now if when > self.now else 1)

    cdef void timer_due(self) noexcept nogil:
        cdef uint64_t fired, ends
        read(self.timer, &fired, 8)
        self.armed = 0
        if self.overload_since:
            if self.overload_until and self.now >= self.overload_until:
                self.overload_until = 0
                if self.reserve < 0:
                    self.reserve = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
                self.rearm(HOLD_BACKOFF)
            ends = self.overload_last + self.overload_pause + EPISODE
            if not self.overload_logged and (
                    self.now >= ends or self.now >= self.overload_since + EPISODE):
                self.overload_logged = True
                self.record(R_OVERLOAD, NULL, -1, <int64_t>self.overload_failures)
            if self.now >= ends:
                self.overload_since = 0
                self.overload_pause = BACKOFF_FIRST
            else:
                if self.overload_until:
                    self.arm_timer(self.overload_until)
                self.arm_timer(ends)
                if not self.overload_logged:
                    self.arm_timer(self.overload_since + EPISODE)
        if self.own != NULL:
            if self.now >= self.next_pulse:
                self.pulse()
            else:
                self.arm_timer(self.next_pulse)
        if self.next_look:
            if self.now >= self.next_look:
                self.look_for_places()
            else:
                self.arm_timer(self.next_look)
        if self.next_sweep and self.next_sweep > self.now:
            self.arm_timer(self.next_sweep)
        if self.records_due and self.records_due > self.now:
            self.arm_timer(self.records_due)

    # -- ending a connection

    cdef void release(self, int fd) noexcept nogil:
        """Close a connection's descriptor and give back all that it held, its place too."""
        cdef Slot *slot = &self.table[fd]
        cdef AcceptorState *state
        cdef uint8_t was = slot.state, flags = slot.flags
        cdef epoll_event event
        if was < SLOT_ACCEPTED:
            return
        state = self.acceptors[slot.acceptor]
        if was != SLOT_PARKED and self.record_mask & 1 << R_CLOSED:
            self.record(R_CLOSED, state, fd, 0)
        # Before close(2): a forked child may hold the descriptor too, and only the last close of
        # all would take it out of the set.
        if flags & FLAG_REGISTERED:
            epoll_ctl(self.fd, EPOLL_CTL_DEL, fd, &event)
        if flags & FLAG_EXTRA:
            memset(&self.extra[fd], 0, sizeof(SlotExtra))
        slot.state = SLOT_FREE
        slot.flags = 0
        slot.deadline = 0
        slot.generation += 1
        close(fd)
        self.open -= 1
        state.active -= 1
        if was == SLOT_PARKED:
            self.parked_count -= 1
        else:
            state.connections -= 1
        if state.active == 0 and state.closing:
            self.retire_soon(state)
        if flags & FLAG_PLACE:
            give_back(state)
        if self.at_capacity and self.open < self.capacity - self.capacity // 64:
            # Not before there is some room: arming all listeners for a single connection is costly.
            self.at_capacity = False
            self.rearm(HOLD_CAPACITY)

    cdef void retire_soon(self, AcceptorState *state) noexcept nogil:
        """The last connection of a closed acceptor has ended: let `retire_acceptors` find it."""
        state.next_ended = self.ended
        self.ended = state

    cdef void finish(self, int fd, bint linger, bint farewell_sent) noexcept:
        """Close a connection that its endpoint has finished with; linger if necessary.

        Args:
            linger: whether `socket.linger` applies: not to a connection that was aborted.
            farewell_sent: a reset must not overtake the farewell. There would be one if input is
                unread, for example from a client that has pipelined too much.
        """
        cdef Slot *slot = &self.table[fd]
        cdef AcceptorState *state
        cdef uint32_t time
        cdef int unsent = 0
        if slot.state != SLOT_OPEN:
            return
        if <Py_ssize_t>fd < len(self.endpoints):
            self.endpoints[fd] = None
        state = self.acceptors[slot.acceptor]
        time = state.linger if linger else 0
        if linger and farewell_sent and not time \
                and recv(fd, self.buffer, RECEIVE_SIZE, MSG_DONTWAIT) > 0:
            time = FAREWELL_TIME
        if time and slot.flags & (FLAG_INET | FLAG_INET6):
            # Edge-triggered, because the acknowledgement of our FIN is an edge (sk_state_change).
            # As a level the socket is writable at once and stays so.
            if shutdown(fd, SHUT_WR) == 0 and ioctl(fd, SIOCOUTQ, &unsent) == 0 and unsent > 0:
                self.tick()
                slot.state = SLOT_LINGERING
                if self.watch_edges(fd, EPOLL_CTL_MOD if slot.flags & FLAG_REGISTERED
                                    else EPOLL_CTL_ADD) == 0:
                    slot.flags |= FLAG_REGISTERED
                    self.set_deadline(fd, time)
                    return
        self.release(fd)

    cdef int watch_edges(self, int fd, int operation) noexcept nogil:
        """Let epoll report every change of a lingering connection; return -1 on failure."""
        cdef epoll_event event
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
        event.data.u64 = slot_key(&self.table[fd], fd)
        return epoll_ctl(self.fd, operation, fd, &event)

    cdef void reset(self, int fd) noexcept nogil:
        """Close with a reset; the kernel drops what it has not sent."""
        cdef linger_t now
        now.l_onoff = 1
        now.l_linger = 0
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))
        self.release(fd)

    # -- listeners

    cdef int set_of(self, const AcceptorState *state) noexcept nogil:
        """Return the epoll set of a listening socket: only shared ones follow the duty."""
        return self.fd if state.own_queue else self.listen_set

    cdef void arm(self, AcceptorState *state) noexcept nogil:
        cdef epoll_event event
        if state.hold or state.registered:
            return
        event.events = EPOLLIN
        event.data.u64 = slot_key(&self.table[state.fd], state.fd)
        if epoll_ctl(self.set_of(state), EPOLL_CTL_ADD, state.fd, &event) == 0:
            state.registered = True
            self.count_listening(state, 1)
        else:
            # Out of kernel memory or watches: treat it as an accept that failed for the process.
            self.overloaded(state, errno)

    cdef void disarm(self, AcceptorState *state, uint8_t hold) noexcept nogil:
        cdef epoll_event event
        state.hold |= hold
        if state.registered:
            state.registered = False
            epoll_ctl(self.set_of(state), EPOLL_CTL_DEL, state.fd, &event)
            self.count_listening(state, -1)
        if state.wait and state.places.row != NULL and not hold & HOLD_WAITING:
            self.leave_queue(state)

    # -- sharing the load with other processes

    cdef void count_listening(self, const AcceptorState *state, int change) noexcept nogil:
        """A listening socket was added to its set, or taken out of it."""
        if self.own == NULL or state.own_queue:
            return
        self.listening += change
        if self.listening == 0:
            self.own.flags &= ~<uint32_t>MEMBER_ACCEPTING
            self.hand_over()
        elif self.listening == 1 and change > 0:
            self.own.flags |= MEMBER_ACCEPTING
            self.go_on_duty(False)
            self.look_pause = DUTY_LOOK_FIRST
            if not self.on_duty:
                self.next_pulse = self.next_duty_look()
                self.arm_timer(self.next_pulse)

    cdef void go_on_duty(self, bint wanted) noexcept nogil:
        """Let the kernel report new connections, if `wanted` or `is_needed`."""
        cdef epoll_event event
        if self.on_duty or self.listening == 0 or not (wanted or self.is_needed()):
            return
        self.on_duty = True
        self.unanswered = 0
        event.events = EPOLLIN
        event.data.u64 = slot_key(&self.table[self.listen_set], self.listen_set)
        epoll_ctl(self.fd, EPOLL_CTL_MOD, self.listen_set, &event)
        self.own.flags |= MEMBER_ON_DUTY

    cdef void hand_over(self) noexcept nogil:
        """Let the others accept: wake those with the least load until enough do."""
        cdef epoll_event event
        cdef Rivals rivals
        cdef uint32_t i, load, best_load, found
        cdef uint32_t last_load = 0
        cdef int64_t last = -1
        cdef uint64_t one = 1
        if not self.on_duty:
            return
        self.on_duty = False
        self.unanswered = 0
        self.look_pause = DUTY_LOOK_FIRST
        # Before the others are woken: they count how many are armed.
        self.own.flags &= ~<uint32_t>MEMBER_ON_DUTY
        if self.fd >= 0:
            event.events = 0
            event.data.u64 = slot_key(&self.table[self.listen_set], self.listen_set)
            epoll_ctl(self.fd, EPOLL_CTL_MOD, self.listen_set, &event)
        if self.listening:
            self.next_pulse = self.next_duty_look()
            self.arm_timer(self.next_pulse)
        self.count_rivals(&rivals)
        while rivals.on_duty < duty_of(rivals.count + 1):
            # The next one in order of load and number.
            found = self.arena.members
            best_load = 0
            for i in range(self.arena.members):
                if not self.is_rival(i) or self.processes[i].flags & MEMBER_ON_DUTY:
                    continue
                load = fl_load32(&self.processes[i].load)
                if load > rivals.most:
                    continue
                if last >= 0 and (load < last_load or (load == last_load and i <= last)):
                    continue
                if found == self.arena.members or load < best_load:
                    found = i
                    best_load = load
            if found == self.arena.members:
                break
            write(self.arena.wakeup_fds[found], &one, 8)
            last = found
            last_load = best_load
            rivals.on_duty += 1

    cdef bint is_rival(self, uint32_t member) noexcept nogil:
        """Whether another process could accept: it has free listening sockets and is alive."""
        cdef Member *other = &self.processes[member]
        return (member != self.number and other.flags & MEMBER_ACCEPTING
                and self.now <= other.heartbeat + PULSE_MISSED)

    cdef void count_rivals(self, Rivals *found) noexcept nogil:
        cdef uint32_t i, load, own = self.own.load, least = own
        cdef bint ahead
        memset(found, 0, sizeof(Rivals))
        for i in range(self.arena.members):
            if self.is_rival(i):
                found.count += 1
                least = min(least, fl_load32(&self.processes[i].load))
        found.most = least + LOAD_SLACK + least // 32
        for i in range(self.arena.members):
            if not self.is_rival(i):
                continue
            load = fl_load32(&self.processes[i].load)
            ahead = load < own or load == own and i < self.number
            if not self.processes[i].flags & MEMBER_ON_DUTY:
                found.others_ahead += ahead
            elif load <= found.most:
                found.on_duty += 1
                found.on_duty_ahead += ahead

    cdef uint64_t next_duty_look(self) noexcept nogil:
        """Return when it is this process's turn to look for clients that nobody accepts."""
        cdef uint32_t i, rank = 0, count = 1
        for i in range(self.arena.members):
            if self.is_rival(i) and not self.processes[i].flags & MEMBER_ON_DUTY:
                count += 1
                rank += i < self.number
        return min(self.now + PULSE, next_turn(self.now, self.look_pause, rank, count))

    cdef bint is_needed(self) noexcept nogil:
        """Whether too few processes are on duty, and this one is next."""
        cdef Rivals rivals
        self.count_rivals(&rivals)
        return (self.own.load <= rivals.most
                and rivals.on_duty + rivals.others_ahead < duty_of(rivals.count + 1))

    cdef void publish(self) noexcept nogil:
        """Tell the other processes the load of this one, and that it is alive."""
        cdef uint64_t halves = (self.now - self.recent_since) // RECENT_HALF
        cdef uint32_t load
        if halves:
            self.recent = self.recent >> min(halves, <uint64_t>31)
            self.recent_since += halves * RECENT_HALF
        load = <uint32_t>self.open + self.recent
        if load != self.own.load:
            self.own.load = load
        self.own.heartbeat = self.now

    cdef void accepted_some(self, uint64_t count, bint shared) noexcept nogil:
        """Count connections that were accepted, and hand over if others have less load."""
        cdef Rivals rivals
        self.recent += <uint32_t>count
        if shared:
            self.own.accepted += count
        self.publish()
        if not self.on_duty:
            return
        self.count_rivals(&rivals)
        if self.own.load > rivals.most or rivals.on_duty_ahead >= duty_of(rivals.count + 1):
            self.hand_over()

    cdef void pulse(self) noexcept nogil:
        """Show that this process is alive; look whether anybody accepts, if not on duty."""
        cdef uint64_t accepted = 0
        cdef uint32_t i
        self.publish()
        self.next_pulse = self.now + PULSE
        if self.listening and not self.on_duty:
            for i in range(self.arena.members):
                accepted += self.processes[i].accepted
            if epoll_wait(self.listen_set, <epoll_event *>self.listen_events, 1, 0) > 0:
                self.unanswered += 1
            else:
                self.unanswered = 0
            if self.unanswered or accepted != self.seen:
                self.look_pause = DUTY_LOOK_FIRST
            else:
                self.look_pause = min(self.look_pause * 2, <uint32_t>DUTY_LOOK_LAST)
            self.seen = accepted
            self.next_pulse = (self.now + DUTY_LOOK_AGAIN if self.unanswered == 1
                               else self.next_duty_look())
            self.go_on_duty(self.unanswered >= 2)
        self.arm_timer(self.next_pulse)

    cdef void rearm(self, int hold) noexcept nogil:
        """Lift one kind of hold from all listeners."""
        cdef uint32_t i
        for i in range(self.acceptors_size):
            if self.acceptors[i] != NULL and self.acceptors[i].hold & hold:
                self.acceptors[i].hold &= ~hold
                self.arm(self.acceptors[i])

    cdef void hold_all(self, uint8_t hold) noexcept nogil:
        cdef uint32_t i
        cdef AcceptorState *state
        for i in range(self.acceptors_size):
            state = self.acceptors[i]
            if state != NULL and state.wait and state.places.row != NULL:
                # All together leave the queues below, which is less work than one by one.
                state.hold &= ~HOLD_WAITING
                give_up(state)
        for i in range(self.acceptors_size):
            if self.acceptors[i] != NULL and not self.acceptors[i].hold & HOLD_CLOSED:
                self.disarm(self.acceptors[i], hold)

    cdef void overloaded(self, AcceptorState *state, int error) noexcept nogil:
        """The process is out of descriptors or memory: pause all listeners, refuse some clients.

        The reserve descriptor is what makes a polite refusal possible. Nobody is refused while
        another process could accept: it serves those that wait, once this one listens no more. But
        nobody else serves those in a queue of this process's own.
        """
        cdef Rivals rivals
        cdef int _turn, fd
        memset(&rivals, 0, sizeof(Rivals))
        if self.own != NULL and not state.own_queue:
            self.count_rivals(&rivals)
        if not self.overload_since:
            self.overload_since = self.now
            self.overload_failures = 0
            self.overload_logged = False
            self.overload_pause = BACKOFF_FIRST
        elif self.overload_until == 0:
            self.overload_pause = min(self.overload_pause * 2, BACKOFF_LAST)
        self.overload_errno = error
        self.overload_last = self.now
        self.overload_failures += 1
        if state.registered and (error == EMFILE or error == ENFILE) and self.reserve >= 0 \
                and rivals.count == 0:
            close(self.reserve)
            for _turn in range(RESERVE_REFUSALS):
                fd = accept4(state.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if fd < 0:
                    break
                state.refused_overload += 1
                self.say_and_close(fd, &state.replies[REPLY_OVERLOAD])
            self.reserve = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
        self.hold_all(HOLD_BACKOFF)
        self.overload_until = self.now + self.overload_pause
        self.arm_timer(self.overload_until)
        self.arm_timer(self.overload_since + EPISODE)

    cdef void say_and_close(self, int fd, const CannedReply *reply) noexcept nogil:
        """Send a last reply on a descriptor that has no slot, and close it at once."""
        if reply.size:
            send(fd, reply.text, reply.size, MSG_NOSIGNAL | MSG_DONTWAIT)
            # Unread bytes would turn the close into a reset that overtakes the text.
            recv(fd, self.buffer, RECEIVE_SIZE, MSG_DONTWAIT)
        close(fd)

    # -- accepting

    cdef void accept_batch(self, AcceptorState *state, int budget) noexcept nogil:
        """Accept until the backlog is empty, the budget is spent, or a limit is reached."""
        cdef sockaddr_storage peer
        cdef socklen_t size
        cdef Slot *slot
        cdef int fd, error
        cdef int left = budget
        cdef bint held
        while left > 0:
            if left & 3 == 0 and fl_microseconds() > self.accept_stop:
                return
            left -= 1
            if self.open >= self.capacity:
                self.at_capacity = True
                self.hold_all(HOLD_CAPACITY)
                if self.capacity_logged == 0 \
                        or self.now - self.capacity_logged >= CAPACITY_SILENCE:
                    self.capacity_logged = self.now
                    self.record(R_CAPACITY, state, -1, self.capacity)
                return
            held = False
            if state.wait and state.places.row != NULL:
                if not self.take_or_sleep(state):
                    return
                held = True
            size = sizeof(peer)
            fd = accept4(state.fd, <sockaddr *>&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                error = errno
                if held:
                    give_back(state)
                if error == EAGAIN:
                    return
                if error == EINTR or error == ECONNABORTED:
                    continue
                count_error(state, error)
                if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
                    self.overloaded(state, error)
                    return
                if concerns_one_connection(error):
                    continue
                # The listening socket was shut down by another process: retrying cannot help.
                self.disarm(state, HOLD_CLOSED)
                self.record(R_BROKEN, state, -1, error)
                return
            if <uint32_t>fd >= self.table_size:
                if held:
                    give_back(state)
                state.refused_overload += 1
                self.say_and_close(fd, &state.replies[REPLY_OVERLOAD])
                continue
            slot = &self.table[fd]
            if slot.state == SLOT_LISTENING:
                # A listening socket had this number, and was closed before its acceptor.
                if self.acceptors[slot.acceptor].registered:
                    self.acceptors[slot.acceptor].registered = False
                    self.count_listening(self.acceptors[slot.acceptor], -1)
                self.acceptors[slot.acceptor].hold |= HOLD_CLOSED
                slot.generation += 1
            fill_slot(self, state, fd, &peer)
            if not held and state.places.row != NULL:
                if not take_place(&state.places):
                    self.refuse(state, fd, False)
                    continue
                if state.total != NULL and not take_total(state.total):
                    give_place(&state.places)
                    self.refuse(state, fd, True)
                    continue
                held = True
            if held:
                slot.flags |= FLAG_PLACE
            count_connection(self, state, fd)
            if state.options_size:
                state.option_errors += options_apply(
                    <OptionEntry *>state.options, state.options_size, fd)
            if state.replies[REPLY_GREETING].size and not self.greet(state, fd):
                self.release(fd)
                continue
            if state.first_byte:
                self.set_deadline(fd, state.first_byte)
            if state.lazy:
                slot.state = SLOT_LAZY
                if self.watch(fd, FLAG_IN if greeted(state, slot) else FLAG_IN | FLAG_OUT) < 0:
                    error = errno
                    self.release(fd)
                    self.overloaded(state, error)
                    return
            else:
                self.accepted[self.accepted_count] = fd
                self.accepted_count += 1

    cdef bint take_or_sleep(self, AcceptorState *state) noexcept nogil:
        """Take a place before accepting, or leave clients in the backlog until one is free.

        To sleep is to set the bit, look again, then stop listening. A place that is given back
        after the bit was set wakes a process; one that was given back before is seen by the second
        look. Only the one who wakes clears the bit, because another socket of the same listener may
        be sleeping too. Nothing is held while sleeping.
        """
        cdef int _attempt
        cdef uint8_t hold = 0
        for _attempt in range(TAKE_ROUNDS):
            if take_place(&state.places):
                if state.total == NULL or take_total(state.total):
                    return True
                # Whoever found the listener full because of this one must look again.
                give_place(&state.places)
                queue_up(&state.total.shared)
                queue_up(&state.total.reserve)
                if is_total_reached(state.total):
                    hold = HOLD_TOTAL
            else:
                queue_up(&state.places)
                if is_limit_reached(&state.places):
                    hold = HOLD_FULL
            if hold:
                self.disarm(state, hold)
                if state.places.members > 1 and self.next_look == 0:
                    self.next_look = self.next_look_for(state)
                    self.arm_timer(self.next_look)
                return False
        # Places are free, but others race for them. The next turn tries again.
        return False

    cdef void pass_on(self, AcceptorState *state) noexcept nogil:
        """Wake the next member that waits, if there is a place for it."""
        if anybody_waits(&state.places) and is_free(state):
            wake_one(&state.places)
        if state.total != NULL:
            if anybody_waits(&state.total.reserve) and is_free(state):
                wake_one(&state.total.reserve)
            if anybody_waits(&state.total.shared) and not is_limit_reached(&state.total.shared):
                wake_one(&state.total.shared)

    cdef void leave_queue(self, AcceptorState *state) noexcept nogil:
        """A listener that waits for places stops accepting: others must not count on it.

        It may have been woken for a place already, so the next member is. If not, other sockets of
        this process that sleep on the same rows look again: they queue up under the same bit.
        """
        cdef uint32_t i
        cdef AcceptorState *other
        state.hold &= ~HOLD_WAITING
        if give_up(state):
            for i in range(self.acceptors_size):
                other = self.acceptors[i]
                if other != NULL and other.hold & HOLD_WAITING \
                        and (other.places.row == state.places.row or state.total != NULL):
                    other.hold &= ~HOLD_WAITING
                    self.arm(other)
        self.pass_on(state)

    cdef uint64_t next_look_for(self, const AcceptorState *state) noexcept nogil:
        """Return when it is this process's turn to look for a place of a listener that waits."""
        cdef uint32_t i, rank = 0, count = 1
        cdef const PlaceCounter *counter = &state.places
        if state.hold & HOLD_TOTAL:
            counter = &state.total.shared
        for i in range(counter.members):
            if i != counter.member and fl_load64(&counter.row.waiters[i // 64]) >> (i % 64) & 1:
                count += 1
                rank += i < counter.member
        return min(self.now + LOOK_LAST, next_turn(self.now, LOOK_PAUSE, rank, count))

    cdef void look_for_places(self) noexcept nogil:
        """Let those listeners accept for which a place is free, though nobody woke them."""
        cdef uint32_t i
        cdef uint64_t when
        cdef AcceptorState *state
        self.next_look = 0
        for i in range(self.acceptors_size):
            state = self.acceptors[i]
            if state == NULL or not state.hold & HOLD_WAITING or state.hold & HOLD_CLOSED:
                continue
            if is_free(state):
                state.hold &= ~HOLD_WAITING
                self.arm(state)
            else:
                when = self.next_look_for(state)
                if self.next_look == 0 or when < self.next_look:
                    self.next_look = when
        if self.next_look:
            self.arm_timer(self.next_look)

    cdef bint greet(self, AcceptorState *state, int fd) noexcept nogil:
        """Send what is left of the greeting; return False if the connection is broken."""
        cdef Slot *slot = &self.table[fd]
        cdef const CannedReply *greeting = &state.replies[REPLY_GREETING]
        cdef ssize_t sent
        while slot.offset < greeting.size:
            sent = send(fd, greeting.text + slot.offset, greeting.size - slot.offset, MSG_NOSIGNAL)
            if sent < 0:
                return errno == EAGAIN or errno == EINTR
            slot.offset += <uint16_t>sent
        return True

    # -- refusing

    cdef void refuse(self, AcceptorState *state, int fd, bint total) noexcept nogil:
        """Send the refusal and close in such a way that it arrives. No place is held for this.

        Args:
            total: the total is reached, not the listener's own limit.
        """
        cdef const CannedReply *refusal = &state.replies[REPLY_REFUSAL]
        cdef ssize_t got
        if total:
            state.refused_total += 1
        else:
            state.refused_limit += 1
        self.record(R_TOTAL if total else R_REFUSED, state, fd, 1)
        if refusal.size == 0:
            close(fd)
            return
        if send(fd, refusal.text, refusal.size, MSG_NOSIGNAL) < 0:
            close(fd)
            return
        if state.server_first:
            got = recv(fd, self.buffer, RECEIVE_SIZE, 0)
            if got < 0 and errno == EAGAIN:
                # Nothing is unread, so that close(2) sends the text and a FIN, not a reset.
                close(fd)
                return
            if got <= 0:
                close(fd)
                return
        self.park(state, fd)

    cdef void park(self, AcceptorState *state, int fd) noexcept nogil:
        """Wait until the peer has read its refusal: a close with unread data sends a reset,
        which would overtake it."""
        cdef Slot *slot = &self.table[fd]
        cdef uint32_t i, kept
        cdef uint64_t entry
        # They count towards the capacity; a flood of refused clients must not use it up.
        cdef int64_t most = min(<int64_t>MAX_PARKED, max(<int64_t>1, self.capacity // 4))
        shutdown(fd, SHUT_WR)
        if self.parked_tail - self.parked_head >= PARKED_RING:
            # The ring is full, mostly of entries that have ended: keep the others.
            kept = self.parked_head
            for i in range(self.parked_tail - self.parked_head):
                entry = self.parked[(self.parked_head + i) % PARKED_RING]
                if self.is_parked(entry):
                    self.parked[kept % PARKED_RING] = entry
                    kept += 1
            self.parked_tail = kept
        while self.parked_count >= most and self.parked_head != self.parked_tail:
            entry = self.parked[self.parked_head % PARKED_RING]
            self.parked_head += 1
            if self.is_parked(entry):
                self.release(<int><uint32_t>entry)
        slot.state = SLOT_PARKED
        slot.offset = 0
        if fd >= <int>self.top:
            self.top = fd + 1
        self.open += 1
        state.active += 1
        self.parked_count += 1
        if self.watch(fd, FLAG_IN) < 0:
            self.release(fd)
            return
        self.set_deadline(fd, PARKED_TIME)
        self.parked[self.parked_tail % PARKED_RING] = slot_key(slot, fd)
        self.parked_tail += 1

    cdef bint is_parked(self, uint64_t entry) noexcept nogil:
        cdef Slot *slot = &self.table[<uint32_t>entry]
        return slot.state == SLOT_PARKED and slot.generation == <uint32_t>(entry >> 32)

    # -- one wake-up

    cdef void native_pass(self) noexcept nogil:
        """Call epoll_wait once and handle all events that need no Python."""
        cdef epoll_event *events = <epoll_event *>self.events
        cdef int i, fd, listening = 0
        cdef Slot *slot
        self.position = 0
        self.accepted_position = self.accepted_count = 0
        self.count = epoll_wait(self.fd, events, MAX_EVENTS, 0)
        if self.count < 0:
            self.count = 0
            return
        for i in range(self.count):
            fd = <int><uint32_t>events[i].data.u64
            slot = &self.table[fd]
            if slot.generation == <uint32_t>(events[i].data.u64 >> 32) \
                    and slot.state == SLOT_LISTENING:
                listening += 1
        # Events that are cheap and give places back come before those that take places.
        for i in range(self.count):
            fd = <int><uint32_t>events[i].data.u64
            slot = &self.table[fd]
            if slot.generation != <uint32_t>(events[i].data.u64 >> 32):
                events[i].events = 0
            elif slot.state != SLOT_OPEN and slot.state != SLOT_LISTENING:
                if slot.state != SLOT_LAZY:
                    self.native_event(fd, events[i].events)
                    events[i].events = 0
                elif events[i].events == <uint32_t>EPOLLOUT:
                    events[i].events = 0
                    self.continue_greeting(fd)
        if listening:
            self.accept_ready(self.events, self.count, listening)
        if self.listen_ready:
            self.listen_ready = False
            i = epoll_wait(self.listen_set, <epoll_event *>self.listen_events, MAX_EVENTS, 0)
            if i > 0 and self.on_duty:
                self.accept_ready(self.listen_events, i, i)

    cdef void accept_ready(self, void *list, int count, int listening) noexcept nogil:
        """Accept on the listening sockets among these events, of which there are so many."""
        cdef epoll_event *events = <epoll_event *>list
        cdef int i, fd, turn, budget
        cdef bint shared = list == self.listen_events
        cdef int most = SHARED_ACCEPTS if shared else MAX_ACCEPTS
        cdef Slot *slot
        cdef AcceptorState *state
        cdef uint64_t before, accepted = 0
        budget = max(MIN_ACCEPTS, most // listening)
        # Another listener is first each time, so that none starves when time runs out.
        self.rotor += 1
        self.accept_stop = fl_microseconds() + SLICE
        for turn in range(count):
            i = (turn + self.rotor) % count
            if events[i].events == 0:
                continue
            fd = <int><uint32_t>events[i].data.u64
            slot = &self.table[fd]
            if slot.generation != <uint32_t>(events[i].data.u64 >> 32) \
                    or slot.state != SLOT_LISTENING:
                continue
            events[i].events = 0
            state = self.acceptors[slot.acceptor]
            if state.hold == 0 and accepted < <uint64_t>most:
                before = state.accepted
                self.accept_batch(state, min(budget, most - <int>accepted))
                accepted += state.accepted - before
                if state.wait and state.places.row != NULL:
                    # More places may be free than this process was woken for.
                    self.pass_on(state)
        if self.own != NULL and accepted:
            self.accepted_some(accepted, shared)

    cdef void continue_greeting(self, int fd) noexcept nogil:
        cdef AcceptorState *state = self.acceptors[self.table[fd].acceptor]
        if not self.greet(state, fd):
            self.release(fd)
        elif greeted(state, &self.table[fd]) and self.watch(fd, FLAG_IN) < 0:
            self.release(fd)

    cdef void native_event(self, int fd, uint32_t events) noexcept nogil:
        cdef Slot *slot = &self.table[fd]
        cdef ssize_t got
        cdef int unsent = 0
        if slot.state == SLOT_SYSTEM:
            if fd == self.timer:
                self.timer_due()
            elif fd == self.listen_set:
                self.listen_ready = True
            else:
                self.wakeup_due(fd)
        elif slot.state == SLOT_PARKED:
            got = recv(fd, self.buffer, PARKED_BYTES, 0)
            if got < 0 and (errno == EAGAIN or errno == EINTR):
                return
            if got <= 0 or slot.offset + got >= PARKED_BYTES:
                self.release(fd)
            else:
                slot.offset += <uint16_t>got
        elif slot.state == SLOT_LINGERING:
            # Once only: a peer that sends endlessly must not occupy the loop.
            got = recv(fd, self.buffer, RECEIVE_SIZE, 0)
            if events & <uint32_t>EPOLLERR or (got < 0 and errno != EAGAIN and errno != EINTR):
                self.release(fd)
            elif ioctl(fd, SIOCOUTQ, &unsent) < 0 or unsent == 0:
                self.release(fd)
            elif got == RECEIVE_SIZE:
                # There is more, which no edge will report. Setting the same events again does.
                self.watch_edges(fd, EPOLL_CTL_MOD)

    cdef void wakeup_due(self, int fd) noexcept nogil:
        """A place of an unknown row was given back, or others hand over to this process."""
        cdef uint64_t value
        cdef uint32_t i
        cdef AcceptorState *state
        read(fd, &value, 8)
        self.rung += 1
        for i in range(self.acceptors_size):
            state = self.acceptors[i]
            if state == NULL or not state.wait or state.places.row == NULL:
                continue
            if state.hold & HOLD_WAITING:
                state.hold &= ~HOLD_WAITING
                self.arm(state)
            if not state.registered:
                self.pass_on(state)
        if self.own != NULL:
            self.go_on_duty(True)

    def _wake(self):
        """Take a turn: the epoll descriptor is readable. Only the loop calls this."""
        # If something is left over, a turn is scheduled already, and timers must not wait for two.
        if not self.rescheduled:
            self.turn()

    def _continue(self):
        """Take the turn that was scheduled for what was left over. Only the loop calls this."""
        self.rescheduled = False
        self.turn()

    cdef int turn(self) except -1:
        """Handle what is ready, for as long as a turn may last."""
        cdef epoll_event *events = <epoll_event *>self.events
        cdef uint64_t stop, data
        cdef uint32_t happened
        cdef int fd
        cdef Endpoint endpoint
        cdef Slot *slot
        if self.closed:
            return 0
        self.tick()
        if self.next_sweep and self.now > self.next_sweep + LATE \
                and self.now - self.last_turn > STANDSTILL:
            self.postpone_deadlines(self.last_turn)
        self.last_turn = self.now
        try:
            if self.position >= self.count and self.accepted_position >= self.accepted_count:
                with nogil:
                    self.native_pass()
            stop = fl_microseconds() + SLICE
            while self.accepted_position < self.accepted_count:
                fd = self.accepted[self.accepted_position]
                self.accepted_position += 1
                if self.table[fd].state == SLOT_ACCEPTED:
                    self.make_endpoint(fd).start()
                    if self.closed or fl_microseconds() > stop:
                        break
            while self.position < self.count:
                data = events[self.position].data.u64
                happened = events[self.position].events
                self.position += 1
                if happened == 0:
                    continue
                fd = <int><uint32_t>data
                slot = &self.table[fd]
                if slot.generation != <uint32_t>(data >> 32):
                    continue
                if slot.state == SLOT_OPEN:
                    # Held here, because the list may have the only reference and drop it.
                    endpoint = <Endpoint>self.endpoints[fd]
                    endpoint.event(happened)
                elif slot.state == SLOT_LAZY:
                    self.first_byte(fd, happened)
                else:
                    continue
                if self.closed or fl_microseconds() > stop:
                    break
            if self.closed:
                return 0
            if self.next_sweep and self.now >= self.next_sweep:
                self.sweep()
            if self.record_count and (self.now >= self.records_due
                                      or self.record_count > RECORDS // 2):
                self.flush_records()
            if self.own != NULL:
                self.publish()
        finally:
            # Accepted connections are not in the epoll set yet, so nothing else would wake us.
            # Events that are left over keep the epoll descriptor readable.
            if not self.closed and self.accepted_position < self.accepted_count:
                self.reschedule()
        return self.retire_acceptors()

    cdef int reschedule(self) except -1:
        if not self.rescheduled:
            self.rescheduled = True
            self.loop.call_soon(self._continue)
        return 0

    cdef Endpoint make_endpoint(self, int fd):
        """Make the Python object of an accepted or lazy connection; close it if that fails."""
        cdef Acceptor acceptor = <Acceptor>self.owners[self.table[fd].acceptor]
        cdef Endpoint endpoint
        try:
            endpoint = acceptor.endpoint(fd)
            self.set_endpoint(fd, endpoint)
        except BaseException:
            self.release(fd)
            raise
        return endpoint

    cdef int first_byte(self, int fd, uint32_t events) except -1:
        """A lazy connection is readable: make its Python objects, or close it without them."""
        cdef AcceptorState *state
        cdef Endpoint endpoint
        cdef ssize_t got
        cdef char byte
        if events != <uint32_t>EPOLLIN:
            # The end of input or an error, perhaps after the first bytes.
            got = recv(fd, &byte, 1, MSG_PEEK)
            if got < 0 and (errno == EAGAIN or errno == EINTR):
                return 0
            if got <= 0:
                self.release(fd)
                return 0
        endpoint = self.make_endpoint(fd)
        state = self.acceptors[self.table[fd].acceptor]
        if not state.tls:
            self.table[fd].flags |= FLAG_SPOKE
            self.set_deadline(fd, state.idle)
        endpoint.start()
        # The first bytes are received as all others are: unless the protocol has paused or closed.
        return endpoint.event(events) if endpoint.fd >= 0 else 0

    cdef int set_endpoint(self, int fd, Endpoint endpoint) except -1:
        """Let an endpoint serve a connection from now on, perhaps instead of another one."""
        cdef Py_ssize_t size = len(self.endpoints)
        if fd >= size:
            self.endpoints.extend([None] * (fd + 256 - size))
        endpoint.owner = <void *>self
        endpoint.fd = fd
        self.endpoints[fd] = endpoint
        self.table[fd].state = SLOT_OPEN
        return 0

    cdef int add_connection(self, Acceptor acceptor, int fd) except -1:
        """Give a slot to a connection that somebody else has accepted. It holds no place."""
        cdef sockaddr_storage peer
        cdef socklen_t size = sizeof(peer)
        if self.closed or acceptor.state.closing:
            raise RuntimeError("the acceptor is closed")
        if fd < 0 or <uint32_t>fd >= self.table_size:
            raise ValueError(f"descriptor {fd} is out of range")
        if self.table[fd].state != SLOT_FREE:
            raise ValueError(f"descriptor {fd} is already being served")
        memset(&peer, 0, sizeof(peer))
        if getpeername(fd, <sockaddr *>&peer, &size) < 0:
            # The connection has been reset: its address can no longer be found out, and the first
            # receive will report the error.
            peer.ss_family = 0
        self.tick()
        fill_slot(self, acceptor.state, fd, &peer)
        count_connection(self, acceptor.state, fd)
        return 0

    # -- deadlines

    cdef int sweep(self) except -1:
        """End the connections whose time has run out."""
        cdef int expired[256]
        cdef int found = 0, i
        cdef uint64_t next_one = 0, stop
        with nogil:
            next_one = self.find_expired(expired, &found)
            self.next_sweep = next_one
            if next_one:
                self.arm_timer(next_one)
        stop = fl_microseconds() + SLICE
        try:
            for i in range(found):
                self.check_deadline(expired[i], stop)
                if self.closed:
                    break
        except BaseException:
            # An exception that ends programs. If this one continues, the others get their turn.
            if not self.closed:
                self.sweep_soon()
            raise
        return 0

    cdef int check_deadline(self, int fd, uint64_t stop) except -1:
        """End a connection whose time has run out, unless something has arrived in time.

        What has arrived is handled first: the process may have been too busy to get to it.

        Args:
            stop: microseconds of the clock. After that input is left to a later sweep.
        """
        cdef Slot *slot = &self.table[fd]
        cdef uint32_t now = <uint32_t>self.now, events, generation = slot.generation
        if slot.state != SLOT_OPEN and slot.state != SLOT_LAZY or slot.deadline == 0 \
                or <int32_t>(now - slot.deadline) < 0:
            # The end of another connection has changed this one.
            return 0
        events = self.poll_slot(fd)
        if events:
            if fl_microseconds() > stop:
                self.sweep_soon()
                return 0
            if slot.state == SLOT_LAZY:
                self.first_byte(fd, events)
            else:
                (<Endpoint>self.endpoints[fd]).event(events)
            if self.closed or slot.generation != generation or slot.deadline == 0 \
                    or <int32_t>(now - slot.deadline) < 0:
                return 0
        if slot.state != SLOT_OPEN:
            self.sweep_soon()
            return 0
        slot.deadline = 0
        return (<Endpoint>self.endpoints[fd]).expired(not slot.flags & FLAG_SPOKE)

    cdef uint32_t poll_slot(self, int fd) noexcept nogil:
        """Return those events that the connection waits for and that have happened by now."""
        cdef uint8_t flags = self.table[fd].flags
        cdef uint32_t events = EPOLLIN if flags & FLAG_IN else 0
        if flags & FLAG_OUT:
            events |= <uint32_t>EPOLLOUT
        if self.table[fd].state == SLOT_LAZY:
            events |= <uint32_t>EPOLLRDHUP
        return fl_poll(fd, events) if events else 0

    cdef void postpone_deadlines(self, uint64_t since) noexcept nogil:
        """Put off all deadlines by the time during which the process stood still.

        Otherwise clients that were waiting for the server would have no time left: one that is
        answered now could not finish its handshake, however fast it is.
        """
        cdef uint32_t fd
        cdef uint32_t lost = <uint32_t>min(self.now - since, <uint64_t>STANDSTILL_MOST)
        for fd in range(self.top):
            if self.table[fd].deadline:
                self.table[fd].deadline += lost
                if self.table[fd].deadline == 0:
                    self.table[fd].deadline = 1
        self.sweep_soon()

    cdef void sweep_soon(self) noexcept nogil:
        """Sweep again as soon as the loop has done its other work."""
        self.next_sweep = self.now + 1
        self.arm_timer(self.next_sweep)

    cdef uint64_t find_expired(self, int *expired, int *found) noexcept nogil:
        cdef uint32_t fd, now = <uint32_t>self.now
        cdef int32_t left
        cdef uint64_t next_one = 0, when
        cdef int unsent = 0
        cdef Slot *slot
        cdef AcceptorState *state
        for fd in range(self.top):
            slot = &self.table[fd]
            if slot.deadline == 0:
                continue
            left = <int32_t>(slot.deadline - now)
            if left <= 0:
                if slot.state == SLOT_OPEN:
                    if found[0] == 256:
                        next_one = self.now + 1
                        continue
                    expired[found[0]] = <int>fd
                    found[0] += 1
                elif slot.state == SLOT_LINGERING:
                    if ioctl(<int>fd, SIOCOUTQ, &unsent) == 0 and unsent == 0:
                        self.release(<int>fd)
                    else:
                        self.reset(<int>fd)
                elif slot.state == SLOT_LAZY:
                    if self.poll_slot(<int>fd) & <uint32_t>EPOLLIN:
                        # It has sent something that has not been read yet.
                        if found[0] == 256:
                            next_one = self.now + 1
                        else:
                            expired[found[0]] = <int>fd
                            found[0] += 1
                        continue
                    state = self.acceptors[slot.acceptor]
                    if state.tls:
                        state.handshake_failures += 1
                        self.record(R_HANDSHAKE, state, <int>fd, 1)
                    else:
                        state.timed_out += 1
                        self.record(R_TIMED_OUT, state, <int>fd, 1)
                    send_farewell(state, slot, <int>fd, REPLY_FIRST_BYTE)
                    self.release(<int>fd)
                elif slot.state == SLOT_PARKED:
                    # Unread bytes would turn the close into a reset.
                    recv(<int>fd, self.buffer, PARKED_BYTES, MSG_DONTWAIT)
                    self.release(<int>fd)
                else:
                    # ACCEPTED: wait until it has its protocol.
                    next_one = self.now + 1
            else:
                when = max(self.now + <uint32_t>left, self.now + SWEEP_PAUSE)
                if next_one == 0 or when < next_one:
                    next_one = when
        return next_one

    # -- log records

    cdef void record(self, uint8_t kind, AcceptorState *state, int fd,
                     int64_t value) noexcept nogil:
        """Note what is to be logged; whoever calls it looks at `record_mask`, if that is needed."""
        cdef LogRecord *records = <LogRecord *>self.records
        cdef LogRecord *one
        cdef uint32_t i
        if kind >= R_REFUSED and state != NULL:
            # Newest first: in a flood it is the last record that is to be added to.
            for i in range(self.record_count, 0, -1):
                one = &records[i - 1]
                if one.kind == kind and one.acceptor == state.index:
                    one.value += value
                    return
                if self.record_count - i > RECORDS_SEARCHED:
                    break
        if self.record_count == RECORDS:
            self.records_dropped += 1
            return
        one = &records[self.record_count]
        self.record_count += 1
        one.kind = kind
        one.time = fl_walltime()
        one.value = value
        if kind == R_OVERLOAD:
            one.detail = self.overload_errno
        elif kind == R_BROKEN:
            one.detail = <int32_t>value
        elif kind == R_REFUSED and state.places.row != NULL:
            one.detail = <int32_t>state.places.row.limit
        else:
            one.detail = 0
        one.acceptor = state.index if state != NULL else 0xFFFF
        one.flags = 0
        if fd >= 0:
            one.flags = self.table[fd].flags
            one.port = self.table[fd].port
            memcpy(one.address, self.table[fd].address, 16)
        if self.records_due == 0 or self.record_count == 1:
            self.records_due = self.now + RECORD_PAUSE
            self.arm_timer(self.records_due)

    cdef int flush_records(self) except -1:
        cdef LogRecord *records = <LogRecord *>self.records
        cdef LogRecord *one
        cdef uint32_t i
        batch = []
        for i in range(self.record_count):
            one = &records[i]
            owner = self.owners[one.acceptor] if one.acceptor < self.acceptors_size else None
            batch.append((one.kind, one.time / 1000.0, owner,
                          text_of(one.address, one.flags), one.port if one.flags else 0,
                          one.value, one.detail))
        dropped = self.records_dropped
        self.record_count = 0
        self.records_due = 0
        self.records_dropped = 0
        if self.sink is not None:
            try:
                self.sink(batch, dropped)
            except Exception as exc:
                self.loop.call_exception_handler({
                    "message": "Error while writing log records", "exception": exc})
        return 0

    # -- what Python asks

    @property
    def idle(self):
        """Whether it serves no listening socket and no connection."""
        cdef uint32_t i
        if self.open:
            return False
        for i in range(self.acceptors_size):
            if self.acceptors[i] != NULL and not self.acceptors[i].passive:
                return False
        return True

    def share_load(self, Arena arena not None, member):
        """Share the load with the other members of an arena, who have the same listening sockets.

        Whoever accepts keeps the connection. So only a few of them are on duty at a time, that is,
        told about new connections: an eighth, at least two, those with the least load. Who has got
        more than others hands over to the next. A process that is not on duty looks now and then
        for clients that nobody accepts, so that none waits for a process that hangs.

        Call it before the first acceptor listens. It does nothing if the arena has room for one
        member only.

        Raises:
            RuntimeError: an acceptor is listening, or the engine shares the load in another arena.
            OSError: descriptors or memory ran out.
        """
        cdef int fd
        cdef uint32_t i
        arena.require_member(member)
        if arena.members == 1 or (self.arena is arena and self.number == member):
            return
        if self.arena is not None:
            raise RuntimeError("the engine shares the load in another arena")
        for i in range(self.acceptors_size):
            if self.acceptors[i] != NULL and self.acceptors[i].registered:
                raise RuntimeError("an acceptor is listening already")
        if self.listen_events == NULL:
            self.listen_events = calloc(MAX_EVENTS, sizeof(epoll_event))
            if self.listen_events == NULL:
                raise MemoryError
        fd = epoll_create1(EPOLL_CLOEXEC)
        if fd < 0:
            raise_errno("epoll_create1")
        try:
            self.watch_system(fd)
        except BaseException:
            close(fd)
            raise
        self.listen_set = fd
        self.arena = arena
        self.number = member
        self.processes = arena.member_at(0)
        fd = arena.wakeup_fds[self.number]
        if fd not in self.wakeups:
            self.watch_system(fd)
            self.wakeups[fd] = 0
        self.wakeups[fd] += 1
        self.tick()
        self.on_duty = True
        self.own = arena.member_at(self.number)
        self.own.capacity = <uint32_t>min(self.capacity, <int64_t>0xFFFFFFFF)
        self.recent_since = self.now
        self.publish()
        self.hand_over()
        self.next_pulse = self.now + PULSE
        self.arm_timer(self.next_pulse)

    def log_connections(self, bint wanted):
        """Log every connection that is opened or closed (default: only refusals and errors)."""
        cdef uint32_t both = 1 << R_OPENED | 1 << R_CLOSED
        self.record_mask = self.record_mask | both if wanted else self.record_mask & ~both

    def set_capacity(self, int64_t value):
        """Set how many connections this process may have, at least 1."""
        if value < 1:
            raise ValueError(f"capacity must be at least 1, not {value}")
        self.capacity = value
        if self.own != NULL:
            self.own.capacity = <uint32_t>min(value, <int64_t>0xFFFFFFFF)
        if self.at_capacity and self.open < self.capacity:
            self.at_capacity = False
            self.rearm(HOLD_CAPACITY)

    def census(self):
        """Count the slots by state. For tests, and when a leak is suspected: it scans the table.

        Returns:
            The number of slots by the name of their state; ``open`` and ``parked`` are the engine's
            running totals, to compare.
        """
        names = {SLOT_ACCEPTED: "accepted", SLOT_LAZY: "lazy", SLOT_OPEN: "served",
                 SLOT_LINGERING: "lingering", SLOT_PARKED: "parked_slots",
                 SLOT_LISTENING: "listening", SLOT_SYSTEM: "system"}
        counts = dict.fromkeys(names.values(), 0)
        cdef uint32_t fd
        for fd in range(self.top):
            if self.table[fd].state in names:
                counts[names[self.table[fd].state]] += 1
        counts["endpoints"] = sum(1 for endpoint in self.endpoints if endpoint is not None)
        counts["open"] = self.open
        counts["parked"] = self.parked_count
        counts["listeners"] = sum(1 for owner in self.owners if owner is not None)
        return counts

    # -- listeners come and go

    cdef int add_acceptor(self, Acceptor acceptor) except -1:
        """Give an acceptor its index, and watch the arena's wake-up descriptor if it needs it."""
        cdef uint32_t index
        cdef AcceptorState **larger
        self.retire_acceptors()
        index = self.first_free
        while index < self.acceptors_size and self.acceptors[index] != NULL:
            index += 1
        if index == self.acceptors_size:
            if index >= 0xFFFF:
                raise ValueError("an engine serves at most 65,535 listening sockets")
            larger = <AcceptorState **>calloc(index * 2 + 8, sizeof(void *))
            if larger == NULL:
                raise MemoryError
            if self.acceptors != NULL:
                memcpy(larger, self.acceptors, index * sizeof(void *))
                free(self.acceptors)
            self.acceptors = larger
            self.acceptors_size = index * 2 + 8
            self.owners.extend([None] * (self.acceptors_size - len(self.owners)))
        if acceptor.places is not None and acceptor.state.wait:
            self.watch_wakeup(acceptor.places)
        self.first_free = index + 1
        acceptor.state.index = <uint16_t>index
        self.acceptors[index] = acceptor.state
        self.owners[index] = acceptor
        return 0

    cdef int watch_wakeup(self, Places places) except -1:
        cdef int fd = places.counter.wakeups[places.counter.member]
        if fd not in self.wakeups:
            self.watch_system(fd)
            self.wakeups[fd] = 0
        self.wakeups[fd] += 1
        return 0

    cdef int unwatch_wakeup(self, Places places) except -1:
        cdef int fd = places.counter.wakeups[places.counter.member]
        self.wakeups[fd] -= 1
        if self.wakeups[fd] == 0:
            del self.wakeups[fd]
            self.unwatch(fd)
            self.table[fd].state = SLOT_FREE
            self.table[fd].generation += 1
        return 0

    cdef int retire_acceptors(self) except -1:
        """Let go of the closed acceptors whose last connection has ended."""
        cdef AcceptorState *state
        cdef Acceptor acceptor
        while self.ended != NULL:
            if self.record_count:
                # Records name their acceptor by its index, which is about to become free.
                self.flush_records()
                if self.ended == NULL:
                    break
            state = self.ended
            self.ended = state.next_ended
            acceptor = <Acceptor>self.owners[state.index]
            self.acceptors[state.index] = NULL
            self.owners[state.index] = None
            self.first_free = min(self.first_free, <uint32_t>state.index)
            if acceptor.places is not None and state.wait:
                self.unwatch_wakeup(acceptor.places)
            if acceptor.server is not None:
                acceptor.server._retired(acceptor)
        return 0

    def close(self):
        """Close all connections at once, without a farewell, and the engine.

        Listening sockets belong to their owners and stay open. Protocols are not told: whoever
        closes an engine in a running loop should end its connections first.
        """
        cdef uint32_t fd
        cdef AcceptorState *state
        cdef Endpoint endpoint
        if self.closed:
            return
        self.closed = True
        if self.endpoints is None:
            # __init__ did not get that far.
            self.close_descriptors()
            return
        if self.fd >= 0 and not self.forked and not self.loop.is_closed():
            self.loop.remove_reader(self.fd)
        for fd in range(self.top):
            if fd < <uint32_t>len(self.endpoints) and self.endpoints[fd] is not None:
                endpoint = <Endpoint>self.endpoints[fd]
                self.endpoints[fd] = None
                try:
                    endpoint.engine_closed()
                except BaseException as exc:
                    # The other descriptors must be closed all the same.
                    endpoint.fd = -1
                    endpoint.owner = NULL
                    self.loop.call_exception_handler({
                        "message": "Error while closing a connection", "exception": exc})
            if self.table[fd].state >= SLOT_ACCEPTED:
                if self.forked:
                    # The epoll set and the places are the parent's.
                    state = self.acceptors[self.table[fd].acceptor]
                    state.active -= 1
                    if self.table[fd].state == SLOT_PARKED:
                        self.parked_count -= 1
                    else:
                        state.connections -= 1
                    self.open -= 1
                    self.table[fd].state = SLOT_FREE
                    close(<int>fd)
                else:
                    self.release(<int>fd)
        if self.own != NULL and not self.forked:
            self.listening = 0
            self.own.flags &= ~<uint32_t>MEMBER_ACCEPTING
            self.hand_over()
        self.own = NULL
        self.position = self.count = self.accepted_position = self.accepted_count = 0
        if self.record_count and not self.forked:
            self.flush_records()
        self.close_descriptors()

    cdef void close_descriptors(self) noexcept:
        # The epoll sets first: this ends all registrations, those of listening sockets too.
        if self.listen_set >= 0 and self.listen_set != self.fd:
            close(self.listen_set)
        if self.fd >= 0:
            close(self.fd)
        if self.timer >= 0:
            close(self.timer)
        if self.reserve >= 0:
            close(self.reserve)
        self.fd = self.timer = self.reserve = self.listen_set = -1

    def _after_fork(self):
        """In a forked child: close the copies of all descriptors, touch nothing that is shared."""
        self.forked = True
        self.close()

    def _abandoned(self):
        """Close what was left behind by a loop that has been closed or forgotten."""
        if not self.closed and self.open and not self.forked:
            warnings.warn(f"event loop gone with {self.open} connections open",
                          ResourceWarning, source=self)
        self.close()

    def __del__(self):
        self._abandoned()

    def __dealloc__(self):
        self.close_descriptors()
        if self.table != NULL:
            munmap(self.table, self.mapping_size())
        free(self.events)
        free(self.listen_events)
        free(self.accepted)
        free(self.parked)
        free(self.records)
        free(self.acceptors)


cdef void count_error(AcceptorState *state, int error) noexcept nogil:
    """Count a failure of accept4 by its errno; those that have no room count as 0."""
    cdef int i, last = ERROR_KINDS - 1
    for i in range(last):
        if state.error_counts[i] == 0:
            state.error_numbers[i] = <uint8_t>error
        if state.error_numbers[i] == error:
            state.error_counts[i] += 1
            return
    state.error_counts[last] += 1


cdef bint concerns_one_connection(int error) noexcept nogil:
    """Whether accept4 failed because of the new connection: accept(2) says to try the next one."""
    return (error == EPROTO or error == EPERM or error == ENETDOWN or error == ENOPROTOOPT
            or error == EHOSTDOWN or error == ENONET or error == EHOSTUNREACH
            or error == EOPNOTSUPP or error == ENETUNREACH or error == ETIMEDOUT
            or error == ECONNRESET)


cdef int close_abandoned() except -1:
    """Close the engines of loops that are closed. The garbage collector may not find them, because
    it does not see through connections to protocols that refer to their server."""
    for engine in list(engines):
        if not engine.closed and engine.loop.is_closed():
            engine._abandoned()
    return 0


def _close_after_fork():
    for engine in list(engines):
        engine._after_fork()


os.register_at_fork(after_in_child=_close_after_fork)


# --- endpoints and acceptors ------------------------------------------------------------------

@cython.no_gc
cdef class Endpoint:
    """A connection as the engine sees it. For native subclasses; of no use by itself."""

    cdef int start(self) except -1:
        """Begin to serve: the endpoint has its descriptor and its slot."""
        return 0

    cdef int event(self, uint32_t events) except -1:
        """Handle events of epoll."""
        return 0

    cdef int expired(self, bint first_byte) except -1:
        """Handle the end of the connection's time; `first_byte`: nothing has been received."""
        return 0

    cdef int drain(self) except -1:
        """The server shuts down: say farewell and close, unless busy."""
        return 0

    cdef int abort_now(self) except -1:
        """Close at once."""
        return 0

    cdef int abort_with_farewell(self) except -1:
        """Close at once, with a farewell if it can be sent at once."""
        return self.abort_now()

    cdef int close_with_farewell(self) except -1:
        """Close with a farewell, once everything is sent."""
        return 0

    cdef int engine_closed(self) except -1:
        """The engine is being closed, and closes the descriptor itself: forget it."""
        self.fd = -1
        self.owner = NULL
        return 0


cdef class Acceptor:
    """Accepts the connections of one listening socket, under a limit, with canned replies.

    Args:
        engine: what serves the socket.
        sock: a bound and listening, non-blocking socket. It remains the caller's, who must not
            close it before `close`. None: others accept and hand their connections over.
        factory: makes the protocol of a connection; called without arguments, or with the
            connection if `with_connection` is true.
        server: its ``_retired(acceptor)`` is called when, after `close`, the last connection has
            ended.
        listener: what `get_extra_info("listener")` of its connections returns.
        places: the limit under which its connections count; None for no limit.
        options: set on every accepted socket, because the kernel does not let it inherit them.
        lazy: make Python objects at the first byte instead of at accept.
        server_first: the server speaks first, so that a new client has nothing unread in flight.
        wait: take a place before accepting and, if there is none, leave clients in the backlog
            instead of refusing them.
        greeting: sent at accept, at most 65,535 bytes.
        refusal: sent to a connection for which there is no place.
        overload: sent to a connection for which there is no descriptor.
        farewell_first_byte: sent when `first_byte` has passed.
        farewell_idle: sent when `idle` has passed.
        farewell_shutdown: sent by `drain`, `close_clients` and `abort`.
        linger: seconds to go on sending after close, then reset; 0 leaves it to the kernel.
        first_byte: seconds that a client may be silent after accept; 0 for no timeout.
        idle: seconds that it may be silent afterwards; 0 for no timeout.
        notice_loss: also end a connection that is reset, or whose peer no longer answers, while
            nothing is read (reading is paused, or input has ended) and nothing waits to be sent.
            asyncio does not notice that.
        own_queue: no other process accepts on the socket, apart from the predecessor or successor
            of this one; so accept whoever is on duty (`Engine.share_load`).

    Attributes:
        replies: the greeting, refusal and so on, in the order above.
    """

    def __cinit__(self):
        self.state = <AcceptorState *>calloc(1, sizeof(AcceptorState))
        if self.state == NULL:
            raise MemoryError
        self.state.fd = -1
        self.state.hold = HOLD_PAUSED

    def __init__(self, Engine engine not None, sock, factory, *, server=None, listener=None,
                 bint with_connection=False, Places places=None, OptionBatch options=None,
                 bint lazy=False, bint server_first=False, bint wait=False,
                 bytes greeting=b"", bytes refusal=b"", bytes overload=b"",
                 bytes farewell_first_byte=b"", bytes farewell_idle=b"",
                 bytes farewell_shutdown=b"",
                 double linger=0.0, double first_byte=0.0, double idle=0.0,
                 bint notice_loss=False, bint own_queue=False):
        cdef AcceptorState *state = self.state
        cdef int kind
        cdef int fd = sock.fileno() if sock is not None else -1
        if engine.closed:
            raise RuntimeError("the engine is closed")
        check_greeting(greeting)
        if sock is not None and (fd < 0 or <uint32_t>fd >= engine.table_size):
            raise ValueError(f"descriptor {fd} of the listening socket is out of range")
        if sock is not None and engine.table[fd].state != SLOT_FREE:
            raise ValueError(f"descriptor {fd} is already being served")
        self.engine = engine
        self.sock = sock
        self.factory = factory
        self.server = server
        self.listener = listener
        self.with_connection = with_connection
        self.places = places
        self.options = options
        self.context = copy_context()
        self.replies = (greeting, refusal, overload, farewell_first_byte, farewell_idle,
                        farewell_shutdown)
        state.fd = fd
        state.lazy = lazy
        state.server_first = server_first
        state.wait = wait
        for kind in range(REPLY_KINDS):
            state.replies[kind].text = PyBytes_AS_STRING(<bytes>self.replies[kind])
            state.replies[kind].size = <uint32_t>len(<bytes>self.replies[kind])
        state.linger = milliseconds(linger)
        state.first_byte = milliseconds(first_byte)
        state.idle = milliseconds(idle)
        state.notice_loss = notice_loss
        state.own_queue = own_queue
        if places is not None:
            if own_queue:
                places.wake_in_turn()
            state.places = places.counter
            if places.total.shared.row != NULL:
                state.total = &places.total
        if options is not None:
            state.options = options.table
            state.options_size = options.size
        engine.add_acceptor(self)
        if sock is None:
            state.passive = True
            state.hold |= HOLD_CLOSED
            return
        engine.top = max(engine.top, <uint32_t>fd + 1)
        engine.table[fd].state = SLOT_LISTENING
        engine.table[fd].flags = 0
        engine.table[fd].acceptor = state.index
        if engine.at_capacity:
            state.hold |= HOLD_CAPACITY
        if engine.overload_until:
            state.hold |= HOLD_BACKOFF

    cdef Endpoint endpoint(self, int fd):
        raise NotImplementedError

    def resume(self):
        """Start or resume accepting. A new acceptor is paused until this is called.

        Raises:
            RuntimeError: the acceptor is closed.
        """
        if self.state.hold & HOLD_CLOSED or self.engine.closed:
            raise RuntimeError("the acceptor is closed")
        self.state.hold &= ~HOLD_PAUSED
        self.engine.tick()
        self.engine.arm(self.state)

    def pause(self):
        """Stop accepting: new clients wait in the backlog, connections go on."""
        if not self.engine.closed:
            self.engine.disarm(self.state, HOLD_PAUSED)

    def close(self):
        """Stop accepting for good and let go of the listening socket; connections go on."""
        cdef Engine engine = self.engine
        cdef Slot *slot
        if self.state.closing:
            return
        self.state.closing = True
        if not engine.closed:
            engine.disarm(self.state, HOLD_CLOSED)
            if not self.state.passive:
                slot = &engine.table[self.state.fd]
                # If not, the socket was closed first, and another one has its number already.
                if slot.state == SLOT_LISTENING and slot.acceptor == self.state.index:
                    slot.state = SLOT_FREE
                    slot.generation += 1
            if self.state.active == 0:
                engine.retire_soon(self.state)
            engine.retire_acceptors()
        elif self.server is not None:
            self.server._retired(self)

    def drain(self):
        """Say farewell to all idle connections and close them; return how many are still open.

        Call it again until it returns 0: a connection whose protocol is `busy` is left to the next
        call.
        """
        cdef Engine engine = self.engine
        cdef uint32_t fd
        cdef Slot *slot
        cdef Endpoint endpoint
        engine.tick()
        for fd in range(engine.top):
            slot = &engine.table[fd]
            if slot.state < SLOT_ACCEPTED or slot.acceptor != self.state.index:
                continue
            if slot.state == SLOT_LAZY:
                send_farewell(self.state, slot, <int>fd, REPLY_SHUTDOWN)
                engine.release(<int>fd)
            elif slot.state == SLOT_OPEN:
                endpoint = <Endpoint>engine.endpoints[fd]
                endpoint.drain()
        engine.retire_acceptors()
        return self.state.active

    def close_clients(self):
        """Close all connections: those with a protocol once everything is sent, silent ones now.

        They are sent `farewell_shutdown` first.

        Returns:
            How many there were.
        """
        cdef Engine engine = self.engine
        cdef uint32_t fd
        cdef Slot *slot
        cdef Endpoint endpoint
        found = 0
        for fd in range(engine.top):
            slot = &engine.table[fd]
            if slot.acceptor != self.state.index:
                continue
            if slot.state == SLOT_OPEN:
                found += 1
                endpoint = <Endpoint>engine.endpoints[fd]
                endpoint.close_with_farewell()
            elif slot.state == SLOT_LAZY or slot.state == SLOT_ACCEPTED:
                found += 1
                if slot.state == SLOT_LAZY:
                    send_farewell(self.state, slot, <int>fd, REPLY_SHUTDOWN)
                engine.release(<int>fd)
        engine.retire_acceptors()
        return found

    def abort(self, *, bint farewell=False):
        """Close all connections at once and tell their protocols.

        Args:
            farewell: send `farewell_shutdown` (or a protocol's `last_words`) first, to those peers
                that can take it at once.

        Returns:
            How many there were.
        """
        cdef Engine engine = self.engine
        cdef uint32_t fd
        cdef Slot *slot
        cdef Endpoint endpoint
        found = 0
        for fd in range(engine.top):
            slot = &engine.table[fd]
            if slot.state < SLOT_ACCEPTED or slot.acceptor != self.state.index:
                continue
            found += 1
            if slot.state == SLOT_OPEN:
                endpoint = <Endpoint>engine.endpoints[fd]
                if farewell:
                    endpoint.abort_with_farewell()
                else:
                    endpoint.abort_now()
            else:
                if farewell and slot.state == SLOT_LAZY:
                    send_farewell(self.state, slot, <int>fd, REPLY_SHUTDOWN)
                engine.release(<int>fd)
        engine.retire_acceptors()
        return found

    def endpoints(self):
        """Return the connections that have Python objects, in order of descriptor."""
        cdef uint32_t fd
        cdef Engine engine = self.engine
        cdef uint32_t top = min(engine.top, <uint32_t>len(engine.endpoints))
        return [engine.endpoints[fd] for fd in range(top)
                if engine.endpoints[fd] is not None
                and engine.table[fd].acceptor == self.state.index]

    @property
    def accepting(self):
        """Whether its socket is in the epoll set."""
        return self.state.registered

    @property
    def full(self):
        """Whether clients wait in the backlog for a place under `places` (`wait`)."""
        return bool(self.state.hold & HOLD_FULL)

    @property
    def total_reached(self):
        """Whether clients wait in the backlog for a place under the server's total (`wait`)."""
        return bool(self.state.hold & HOLD_TOTAL)

    @property
    def paused(self):
        """Whether it was paused, or never resumed."""
        return bool(self.state.hold & HOLD_PAUSED)

    @property
    def closed(self):
        """Whether `close` was called, or the kernel says that the socket does not listen."""
        return bool(self.state.hold & HOLD_CLOSED)

    @property
    def connections(self):
        """Connections in flight, from accept to close; parked refusals do not count."""
        return self.state.connections

    @property
    def held(self):
        """Descriptors in use: connections and parked refusals."""
        return self.state.active

    def statistics(self):
        """Return what was counted since the start, by name (see ConnectionServer.statistics)."""
        return {
            "accepted": self.state.accepted,
            "refused_limit": self.state.refused_limit,
            "refused_total": self.state.refused_total,
            "refused_overload": self.state.refused_overload,
            "accept_errors": sum(self.accept_errors().values()),
            "option_errors": self.state.option_errors,
            "timed_out": self.state.timed_out,
            "handshake_failures": self.state.handshake_failures,
            "truncated": self.state.truncated,
        }

    def accept_errors(self):
        """Return how often accept4 has failed since the start, by errno; 0 stands for others."""
        cdef int i
        return {
            self.state.error_numbers[i]: self.state.error_counts[i]
            for i in range(ERROR_KINDS) if self.state.error_counts[i]
        }

    def __dealloc__(self):
        free(self.state)
