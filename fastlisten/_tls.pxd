# TLS on the descriptor: attributes and signatures.

cimport cython
from libc.stdint cimport uint32_t

from fastlisten._connection cimport Connection, ConnectionAcceptor, Security


cdef enum TlsFlag:
    HANDSHAKE = 1           # not finished, perhaps not begun
    STARTED = 2             # by start_tls(): the protocol is connected already
    ATTACHED = 4            # by attach(): somebody waits for connection_made
    HELD = 8                # nothing is delivered before the code that waits has run
    SILENT = 16             # lazy: greeted, no protocol object yet
    SHUTTING = 32           # close() was called
    WANTS_WRITE = 64        # the handshake or the shutdown waits for room to write
    READ_WANTS_WRITE = 128  # ... or a read does
    WRITE_WANTS_READ = 256  # a write waits for input
    RETRY = 512             # OpenSSL holds a record that waits for room: the same bytes go on
    EOF_TOLD = 1024         # eof_received was called
    RAW_EOF = 2048          # the peer has ended TCP
    TRUNCATED = 4096        # ... without close_notify
    UNREAD = 8192           # OpenSSL may have more in memory than it has given out
    NOTIFIED = 65536        # our close_notify is on its way
    HUNG_UP = 32768         # epoll has told that the peer will send no more
    FORGOTTEN = 16384       # connection_lost was called: as asyncio's, it knows no socket any more


cdef class TlsSettings(Security):
    cdef readonly object context
    cdef readonly double handshake_timeout
    cdef readonly double shutdown_timeout
    cdef readonly Py_ssize_t handshakes
    cdef uint32_t shutdown_time    # milliseconds
    # OrderedDict by address of TlsConnection, oldest first. Borrowed: each is in its engine's list,
    # and gone from here before it ends.
    cdef object progress


cdef class Buffers:
    cdef object incoming    # MemoryBIO, as is the next
    cdef object outgoing
    cdef bytes unsent       # taken from it, and not yet by the kernel from `offset` on; or None
    cdef Py_ssize_t offset


@cython.no_gc
cdef class TlsConnection(Connection):
    cdef TlsSettings settings
    cdef object holder     # the socket object that OpenSSL's side looks at, or its Buffers
    cdef object session    # _ssl._SSLSocket; with Buffers an SSLObject
    cdef void *ssl         # OpenSSL's side of it; NULL with Buffers
    cdef object ssl_owner  # an SSLObject, for the server-name callback
    cdef bytes early       # decrypted, but not delivered yet
    cdef uint32_t tls
    cdef int error         # what the kernel says broke the connection; 0 for nothing
    cdef int note_error(self) except -1
    cdef object broken(self)
    cdef int begin(self) except -1
    cdef int wrap(self) except -1
    cdef int handshake(self) except -1
    cdef int ready(self) except -1
    cdef int handshake_failed(self, exc) except -1
    cdef int happened(self, uint32_t events) except -1
    cdef Buffers between(self)
    cdef Py_ssize_t unsent(self) except -1
    cdef bint pour(self) except -1
    cdef bint fill(self) except -1
    cdef bint at_end(self) except -1
    cdef int receive_turn(self) except -1
    cdef Py_ssize_t take(self, target, char *start, Py_ssize_t room) except -2
    cdef int took(self, Py_ssize_t got) except -1
    cdef int introduce(self, bytes data) except -1
    cdef int read_failed(self, exc) except -1
    cdef int tell_eof(self) except -1
    cdef int shutdown_step(self) except -1
    cdef int gather(self) except -1
    cdef Py_ssize_t decrypt(self, char *target, size_t room) except -2
    cdef Py_ssize_t encrypt(self, bytes data, Py_ssize_t offset) except -2
    cdef int write_failed(self, exc) except -1
    cdef int let_go(self) except -1
    cdef object ssl_object(self)


cdef class TlsAcceptor(ConnectionAcceptor):
    cdef readonly TlsSettings tls
    cdef uint32_t first_byte
