# TLS on the descriptor: layout and signatures.

cimport cython
from libc.stdint cimport uint32_t

from fastlisten._connection cimport Connection, ConnectionAcceptor, Security


cdef enum TlsFlag:
    HANDSHAKE = 1           # the handshake is not done, perhaps not begun
    STARTED = 2             # made by start_tls(): the protocol is connected already
    ATTACHED = 4            # made by attach(): the caller waits for connection_made
    HELD = 8                # nothing is delivered until the code that waits has run
    SILENT = 16             # lazy: greeted, but there is no protocol object yet
    SHUTTING = 32           # close() was called
    WANTS_WRITE = 64        # the handshake or the shutdown waits for room to write
    READ_WANTS_WRITE = 128  # a read waits for room to write
    WRITE_WANTS_READ = 256  # a write waits for input
    RETRY = 512             # OpenSSL holds a record that waits for room: offer the same bytes again
    EOF_DELIVERED = 1024    # eof_received was called
    RAW_EOF = 2048          # the peer has ended TCP
    TRUNCATED = 4096        # ... without close_notify
    UNREAD = 8192           # OpenSSL may have more in memory than it has given out
    FORGOTTEN = 16384       # connection_lost was called; as in asyncio there is no socket any more
    HUNG_UP = 32768         # epoll has reported that the peer will send no more
    NOTIFIED = 65536        # our close_notify has been sent, or is about to be


cdef class TlsSettings(Security):
    cdef readonly object context
    cdef readonly double handshake_timeout
    cdef readonly double shutdown_timeout
    cdef readonly Py_ssize_t handshakes
    cdef uint32_t shutdown_time    # milliseconds
    # Handshakes in progress, oldest first: an OrderedDict by address of TlsConnection.
    # Borrowed: each connection is in its engine's list, and leaves this one before it ends.
    cdef object progress


cdef class Buffers:
    cdef object incoming    # a MemoryBIO
    cdef object outgoing    # a MemoryBIO
    cdef bytes unsent       # taken from `outgoing`; from `offset` on not yet sent; or None
    cdef Py_ssize_t offset


@cython.no_gc
cdef class TlsConnection(Connection):
    cdef TlsSettings settings
    cdef object holder     # the socket object that the session refers to, or its Buffers
    cdef object session    # _ssl._SSLSocket; with Buffers an SSLObject
    cdef void *ssl         # OpenSSL's pointer to the session; NULL with Buffers
    cdef object ssl_owner  # an SSLObject, for the server-name callback
    cdef bytes early       # decrypted, but not delivered yet
    cdef uint32_t tls      # TlsFlag
    cdef int error         # the errno that broke the connection; 0 if none did
    cdef int fetch_error(self) except -1
    cdef object os_error(self)
    cdef int start_session(self) except -1
    cdef int make_session(self) except -1
    cdef int handshake(self) except -1
    cdef int handshake_done(self) except -1
    cdef int handshake_failed(self, exc) except -1
    cdef int handle_event(self, uint32_t events) except -1
    cdef Buffers buffers(self)
    cdef Py_ssize_t unsent(self) except -1
    cdef bint send_outgoing(self) except -1
    cdef bint receive_incoming(self) except -1
    cdef bint at_end(self) except -1
    cdef int receive_records(self) except -1
    cdef Py_ssize_t read_into(self, target, char *start, Py_ssize_t room) except -2
    cdef int received(self, Py_ssize_t got) except -1
    cdef int deliver_first(self, bytes data) except -1
    cdef int read_failed(self, exc) except -1
    cdef int call_eof_received(self) except -1
    cdef int shutdown_step(self) except -1
    cdef int join_chunks(self) except -1
    cdef Py_ssize_t decrypt(self, char *target, size_t room) except -2
    cdef Py_ssize_t encrypt(self, bytes data, Py_ssize_t offset) except -2
    cdef int write_failed(self, exc) except -1
    cdef int detach_session(self) except -1
    cdef object ssl_object(self)


cdef class TlsAcceptor(ConnectionAcceptor):
    cdef readonly TlsSettings tls
    cdef uint32_t first_byte
