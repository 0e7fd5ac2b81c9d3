# The native core as other native modules see it: slots, acceptors, the engine.
#
# Rules of this file: layout and signatures, and the few inline functions that other modules need.
# `_core` knows nothing of the modules that cimport it: they subclass Endpoint and Acceptor to say
# what a connection is.

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastlisten._arena cimport Arena, Member, PlaceCounter, Places, TotalCounter


# The state of a slot's descriptor. Only the core changes it.
cdef enum SlotState:
    SLOT_FREE = 0        # not ours
    SLOT_SYSTEM = 1      # the engine's timer, or a wake-up descriptor of the arena
    SLOT_LISTENING = 2   # a listening socket
    SLOT_ACCEPTED = 3    # accepted; its Python objects do not exist yet
    SLOT_LAZY = 4        # greeted, has sent nothing: no Python object exists
    SLOT_OPEN = 5        # has an Endpoint
    SLOT_LINGERING = 6   # closed by us, but the kernel is still sending
    SLOT_PARKED = 7      # refused; waits until the peer has read the refusal
    SLOT_PROXY = 8       # reserved: waits for its PROXY header


cdef enum SlotFlag:
    FLAG_PLACE = 1        # holds a place under max-connections
    FLAG_REGISTERED = 2   # is in the epoll set
    FLAG_IN = 4           # ... waiting for input
    FLAG_OUT = 8          # ... waiting for room to write
    FLAG_INET = 16        # `address` is an IPv4 address
    FLAG_INET6 = 32       # `address` is an IPv6 address
    FLAG_SPOKE = 64       # the peer has sent at least one byte
    FLAG_EXTRA = 128      # its SlotExtra is in use


# What a log record reports. From R_REFUSED on, records of one kind and listener are added up within
# a batch.
cdef enum RecordKind:
    R_OPENED = 0
    R_CLOSED = 1
    R_REFUSED = 2
    R_TIMED_OUT = 3
    R_OVERLOAD = 4
    R_CAPACITY = 5
    R_BROKEN = 6
    R_HANDSHAKE = 7
    R_TOTAL = 8          # refused because of the total, as R_REFUSED is because of the limit


# 32 bytes: two slots share a cache line. A lazy connection costs nothing else.
cdef struct Slot:
    uint8_t state
    uint8_t flags
    uint16_t acceptor     # index of the AcceptorState
    uint32_t generation   # changes when the descriptor is closed, so that old events do not match
    uint32_t deadline     # low 32 bits of the engine's clock (ms), 0 for none
    uint16_t port         # the peer's, in host order
    uint16_t offset       # LAZY, ACCEPTED: bytes of the greeting sent; PARKED: bytes read
    uint8_t address[16]   # the peer's, as accept4 gave it


# What few connections need. Pages are touched only by these.
cdef struct SlotExtra:
    uint32_t scope        # the peer's IPv6 scope id
    uint32_t cell         # reserved: the per-address counter that the connection holds
    uint32_t proxy        # reserved: bytes of the PROXY header received
    uint32_t spare


# What is sent without asking a handler: the index into Acceptor.replies and AcceptorState.replies.
cdef enum:
    REPLY_GREETING = 0
    REPLY_REFUSAL = 1       # no place under the limit
    REPLY_OVERLOAD = 2      # no descriptor or no memory
    REPLY_FIRST_BYTE = 3    # farewell: nothing was sent within `first_byte`
    REPLY_IDLE = 4          # farewell: nothing was sent within `idle`
    REPLY_SHUTDOWN = 5      # farewell: the server shuts down
    REPLY_KINDS = 6


cdef struct CannedReply:
    const char *text
    uint32_t size           # 0: nothing is sent


cdef enum:
    # The most to receive at once, and the size of the engine's buffer: asyncio's max_size.
    RECEIVE_SIZE = 262144
    # The longest greeting: Slot.offset counts its bytes in 16 bits.
    MAX_GREETING = 65535
    # How long (ms) a peer has to read a farewell before the connection is closed.
    FAREWELL_TIME = 10000


# How many different errors of accept4 a listener counts by number: the four that concern the
# process, and those of single connections that occur in practice. Further ones are added up without
# a number.
cdef enum:
    ERROR_KINDS = 8


# Why a listener does not accept at the moment. It accepts while no bit is set.
cdef enum Hold:
    HOLD_PAUSED = 1       # Acceptor.pause()
    HOLD_FULL = 2         # limit-action = "wait", and no place is left
    HOLD_BACKOFF = 4      # the process is out of descriptors or memory
    HOLD_CAPACITY = 8     # the process has as many connections as it may have
    HOLD_CLOSED = 16      # closed for good
    HOLD_TOTAL = 32       # limit-action = "wait", and the total of all listeners is reached
    HOLD_WAITING = HOLD_FULL | HOLD_TOTAL


cdef struct AcceptorState:
    int fd
    uint16_t index
    uint8_t hold
    bint registered
    bint lazy
    bint server_first
    bint wait
    bint tls                # connections begin with a handshake; `first_byte` is its timeout
    bint passive            # has no listening socket; others accept its connections
    bint own_queue          # the listening socket is not shared with other processes
    bint notice_loss        # a reset also ends a connection that neither reads nor writes
    bint closing            # Acceptor.close() was called
    PlaceCounter places     # max-connections; without a row there is no limit
    TotalCounter *total     # the total of all listeners; NULL: there is none
    CannedReply replies[REPLY_KINDS]    # what the core sends without Python
    void *options           # for accepted sockets: the table of an OptionBatch
    uint32_t options_size
    uint32_t linger         # ms; 0 leaves it to the kernel
    uint32_t first_byte     # ms; 0: no timeout
    uint32_t idle           # ms; 0: no timeout
    uint32_t active         # slots that belong to this acceptor, parked refusals included
    uint32_t connections    # ... without parked refusals
    uint64_t accepted
    uint64_t refused_limit
    uint64_t refused_total
    uint64_t refused_overload
    uint32_t error_counts[ERROR_KINDS]  # failures of accept4
    uint8_t error_numbers[ERROR_KINDS]  # the errno of each count; 0 if there is none yet
    uint64_t option_errors
    uint64_t timed_out
    uint64_t handshake_failures
    uint64_t truncated
    AcceptorState *next_ended   # in Engine.ended


# The other processes that could accept now.
cdef struct Rivals:
    uint32_t count
    uint32_t most           # the greatest load of a process that is to be on duty
    uint32_t on_duty        # the kernel tells them about new connections, and their load is right
    uint32_t on_duty_ahead  # ... and they come before this process in order of load and number
    uint32_t others_ahead   # the kernel does not, and they come before it


cdef inline uint32_t milliseconds(double seconds) except? 0xFFFFFFFF:
    """Convert a timeout. More than 14 days become 14 days: Slot.deadline has 32 bits."""
    if not 0 <= seconds:
        raise ValueError(f"a timeout must not be negative: {seconds}")
    return <uint32_t>(min(seconds, 1209600.0) * 1000 + 0.999)


cdef inline int check_greeting(bytes greeting) except -1:
    if len(greeting) > MAX_GREETING:
        raise ValueError(f"greeting of {len(greeting)} bytes, at most {MAX_GREETING:,} allowed")
    return 0


@cython.final
cdef class OptionBatch:
    cdef readonly tuple entries
    cdef void *table
    cdef uint32_t size


cdef class Engine:
    cdef readonly object loop
    cdef readonly int fd
    cdef readonly bint closed
    cdef readonly int64_t capacity
    cdef readonly int64_t open
    cdef public object sink
    cdef object __weakref__
    cdef int timer
    cdef int reserve
    cdef bint forked
    cdef bint rescheduled
    cdef Slot *table
    cdef SlotExtra *extra
    cdef uint32_t table_size
    cdef uint32_t top
    cdef list endpoints
    cdef AcceptorState **acceptors
    cdef uint32_t acceptors_size
    cdef uint32_t first_free    # no index below is free
    cdef list owners
    cdef dict wakeups
    cdef char *buffer
    cdef object view        # of `buffer`
    cdef void *events
    cdef int position
    cdef int count
    cdef int *accepted
    cdef int accepted_position
    cdef int accepted_count
    cdef uint64_t now
    cdef uint64_t last_turn  # when the last turn began
    cdef uint64_t next_sweep
    cdef uint64_t armed
    cdef uint64_t next_look  # when to look for a place that nobody woke us for; 0: nobody waits
    cdef readonly uint64_t rung  # how often another member or ourselves woke us
    # sharing the load with other processes; all of it is unused if there are none
    cdef Arena arena
    cdef Member *processes   # of all members
    cdef Member *own         # NULL: no load is shared
    cdef uint32_t number
    cdef int listen_set      # where shared listening sockets are: the epoll set, or one in it
    cdef void *listen_events
    cdef uint32_t listening  # sockets in `listen_set`
    cdef bint listen_ready   # `listen_set` has been reported
    cdef readonly bint on_duty   # the kernel reports `listen_set`
    cdef uint32_t recent     # recent accepts, see RECENT_HALF
    cdef uint64_t recent_since
    cdef uint64_t next_pulse
    cdef uint32_t look_pause  # how long until the next of those that are not on duty looks
    cdef uint32_t unanswered  # how many looks in a row have found clients that nobody accepts
    cdef uint64_t seen       # connections that all members had accepted at the last look
    # parked refusals in a ring, oldest first
    cdef uint64_t *parked
    cdef uint32_t parked_head
    cdef uint32_t parked_tail
    cdef uint32_t parked_count
    # an episode of overload
    cdef int overload_errno
    cdef uint64_t overload_since
    cdef uint64_t overload_last
    cdef uint64_t overload_until
    cdef uint32_t overload_pause
    cdef uint64_t overload_failures
    cdef bint overload_logged
    cdef bint at_capacity
    cdef uint64_t capacity_logged   # when
    # log records
    cdef void *records
    cdef uint32_t record_count
    cdef uint32_t record_mask
    cdef uint64_t records_dropped
    cdef uint64_t records_due
    cdef uint64_t accept_stop
    cdef uint32_t rotor
    cdef AcceptorState *ended    # closed acceptors whose last connection has ended, in a list

    cdef size_t mapping_size(self)
    cdef int watch_system(self, int fd) except -1
    cdef uint64_t tick(self) noexcept nogil
    cdef int watch(self, int fd, int flags) noexcept nogil
    cdef void unwatch(self, int fd) noexcept nogil
    cdef void set_deadline(self, int fd, uint32_t milliseconds) noexcept nogil
    cdef void arm_timer(self, uint64_t when) noexcept nogil
    cdef void timer_due(self) noexcept nogil
    cdef void release(self, int fd) noexcept nogil
    cdef void retire_soon(self, AcceptorState *state) noexcept nogil
    cdef void finish(self, int fd, bint linger, bint farewell_sent) noexcept
    cdef int watch_edges(self, int fd, int operation) noexcept nogil
    cdef void reset(self, int fd) noexcept nogil
    cdef int set_of(self, const AcceptorState *state) noexcept nogil
    cdef void arm(self, AcceptorState *state) noexcept nogil
    cdef void disarm(self, AcceptorState *state, uint8_t hold) noexcept nogil
    cdef void count_listening(self, const AcceptorState *state, int change) noexcept nogil
    cdef void go_on_duty(self, bint wanted) noexcept nogil
    cdef void hand_over(self) noexcept nogil
    cdef bint is_rival(self, uint32_t member) noexcept nogil
    cdef void count_rivals(self, Rivals *found) noexcept nogil
    cdef uint64_t next_duty_look(self) noexcept nogil
    cdef bint is_needed(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef void accepted_some(self, uint64_t count, bint shared) noexcept nogil
    cdef void pulse(self) noexcept nogil
    cdef void rearm(self, int hold) noexcept nogil
    cdef void hold_all(self, uint8_t hold) noexcept nogil
    cdef void overloaded(self, AcceptorState *state, int error) noexcept nogil
    cdef void say_and_close(self, int fd, const CannedReply *reply) noexcept nogil
    cdef void accept_batch(self, AcceptorState *state, int budget) noexcept nogil
    cdef bint take_or_sleep(self, AcceptorState *state) noexcept nogil
    cdef void pass_on(self, AcceptorState *state) noexcept nogil
    cdef void leave_queue(self, AcceptorState *state) noexcept nogil
    cdef uint64_t next_look_for(self, const AcceptorState *state) noexcept nogil
    cdef void look_for_places(self) noexcept nogil
    cdef bint greet(self, AcceptorState *state, int fd) noexcept nogil
    cdef void refuse(self, AcceptorState *state, int fd, bint total) noexcept nogil
    cdef void park(self, AcceptorState *state, int fd) noexcept nogil
    cdef bint is_parked(self, uint64_t entry) noexcept nogil
    cdef void native_pass(self) noexcept nogil
    cdef void accept_ready(self, void *list, int count, int listening) noexcept nogil
    cdef void continue_greeting(self, int fd) noexcept nogil
    cdef void native_event(self, int fd, uint32_t events) noexcept nogil
    cdef void wakeup_due(self, int fd) noexcept nogil
    cdef uint64_t find_expired(self, int *expired, int *found) noexcept nogil
    cdef void sweep_soon(self) noexcept nogil
    cdef void postpone_deadlines(self, uint64_t since) noexcept nogil
    cdef void record(self, uint8_t kind, AcceptorState *state, int fd, int64_t value) noexcept nogil
    cdef void close_descriptors(self) noexcept
    cdef int turn(self) except -1
    cdef int reschedule(self) except -1
    cdef int first_byte(self, int fd, uint32_t events) except -1
    cdef Endpoint make_endpoint(self, int fd)
    cdef int set_endpoint(self, int fd, Endpoint endpoint) except -1
    cdef int add_connection(self, Acceptor acceptor, int fd) except -1
    cdef int sweep(self) except -1
    cdef int check_deadline(self, int fd, uint64_t stop) except -1
    cdef uint32_t poll_slot(self, int fd) noexcept nogil
    cdef int flush_records(self) except -1
    cdef int add_acceptor(self, Acceptor acceptor) except -1
    cdef int watch_wakeup(self, Places places) except -1
    cdef int unwatch_wakeup(self, Places places) except -1
    cdef int retire_acceptors(self) except -1


# A connection as the engine sees it. Acceptor.endpoint makes it, Engine.finish lets go of it.
# Endpoints are not tracked by the garbage collector, which saves work, and 16 bytes each.
# They cannot form cycles: when the engine lets go of one, it drops all references that might.
@cython.no_gc
cdef class Endpoint:
    cdef void *owner      # the Engine, NULL once `fd` is gone; borrowed, so as not to keep it alive
    cdef int fd
    cdef uint32_t flags   # belongs to the subclass; it is here because it fits into the padding
    cdef inline Engine engine(self):
        """Return the engine that serves the connection."""
        if self.owner == NULL:
            raise RuntimeError("the connection is closed")
        return <Engine>self.owner
    cdef inline Slot *slot(self) except NULL:
        """Return the connection's slot."""
        if self.owner == NULL:
            raise RuntimeError("the connection is closed")
        return &(<Engine>self.owner).table[self.fd]
    cdef int start(self) except -1
    cdef int event(self, uint32_t events) except -1
    cdef int expired(self, bint first_byte) except -1
    cdef int drain(self) except -1
    cdef int abort_now(self) except -1
    cdef int abort_with_farewell(self) except -1
    cdef int close_with_farewell(self) except -1
    cdef int engine_closed(self) except -1


cdef class Acceptor:
    cdef readonly Engine engine
    cdef readonly object sock
    cdef readonly Places places
    cdef readonly OptionBatch options
    cdef readonly tuple replies   # bytes, by REPLY_...
    cdef readonly object server
    cdef readonly object listener
    cdef object factory
    cdef object context
    cdef bint with_connection
    cdef AcceptorState *state
    cdef Endpoint endpoint(self, int fd)
