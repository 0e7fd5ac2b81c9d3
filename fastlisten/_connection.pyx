# The asyncio transport over a slot: what a protocol sees of an open connection.
#
# Rules of this file: asyncio is the specification (selector_events.py and transports.py of
# CPython), down to its messages; what looks odd here is the same there. Bytes are received into the
# engine's buffer and copied once. They are sent at once, and only what the kernel does not take is
# queued.

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport (
    PyContext_Copy, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit,
)
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from fastlisten._core cimport (
    FAREWELL_TIME, FLAG_EXTRA, FLAG_IN, FLAG_INET, FLAG_INET6, FLAG_OUT, FLAG_SPOKE,
    RECEIVE_SIZE, REPLY_FIRST_BYTE, REPLY_GREETING, REPLY_IDLE, REPLY_SHUTDOWN, R_HANDSHAKE,
    R_TIMED_OUT, Acceptor, AcceptorState, Endpoint, Engine, Slot, milliseconds,
)

from fastlisten._system cimport (
    AF_INET, AF_INET6, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR,
    SOL_SOCKET, SO_ERROR, errno_error, fl_address, getpeername, getsockname, getsockopt, inet_ntop,
    iovec_t, msghdr_t, recv, send, sendmsg, shutdown, sockaddr, sockaddr_storage, socklen_t,
)

import asyncio
import logging
import os
import socket
from asyncio.selector_events import _SelectorSocketTransport
from asyncio.trsock import TransportSocket

cdef enum:
    # Chunks per sendmsg. The kernel accepts up to 1,024, but 64 fill any socket buffer of useful
    # size.
    CHUNKS = 64
    # asyncio's default: pause the protocol above 64 KiB, resume at a quarter of the limit.
    HIGH_WATER = 65536
    # linux/in.h and linux/in6.h; Python's socket module does not name the second.
    IP_TRANSPARENT = 19
    IPV6_TRANSPARENT = 75

cdef object logger = logging.getLogger("asyncio")
cdef object BufferedProtocol = asyncio.BufferedProtocol

# Since 3.15, all callbacks of an asyncio connection run in one context, a copy of the server's that
# is made at accept. Before, each kind of callback ran in a copy of the context of the code that had
# last asked for it.
cdef bint ONE_CONTEXT = "context" in _SelectorSocketTransport.__init__.__code__.co_varnames


# Address families by the length of an address.
cdef dict FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6, 0: socket.AF_UNIX}


cdef bytes get_name(int fd, bint peer, SocketName *name):
    """Ask the kernel for the address of one end of a connection; return a Unix socket's path."""
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef Py_ssize_t family = sizeof(address.ss_family)
    name.length = 0
    if (getpeername if peer else getsockname)(fd, <sockaddr *>&address, &size) < 0:
        return None
    name.length = fl_address(&address, name.numbers, &name.port, &name.scope)
    if name.length or <Py_ssize_t>size <= family:
        return None
    return PyBytes_FromStringAndSize(<char *>&address + family, size - family)


cdef bint is_transparent(sock) except -1:
    """Whether a socket may get connections to other addresses (IP_TRANSPARENT, for TPROXY)."""
    level, option = (socket.IPPROTO_IP, IP_TRANSPARENT) if sock.family == socket.AF_INET \
        else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
    return sock.getsockopt(level, option) != 0


cdef object name_of(const SocketName *name, bytes path):
    """Return an address in the form of the socket module."""
    cdef char text[64]
    if name.length == 4:
        inet_ntop(AF_INET, name.numbers, text, sizeof(text))
        return ((<bytes>text).decode("ascii"), name.port)
    if name.length == 16:
        inet_ntop(AF_INET6, name.numbers, text, sizeof(text))
        return ((<bytes>text).decode("ascii"), name.port, 0, name.scope)
    if path is None:
        return ""
    # An abstract name begins with NUL and is not text.
    return path if path[0] == 0 else os.fsdecode(path.partition(b"\0")[0])


cdef class Security:
    """How a connection continues under TLS. For native subclasses (see `TlsSettings`)."""

    cdef int take_over(self, Connection connection, waiter) except -1:
        """Take the descriptor; when the handshake is done, set the new transport as the result of
        `waiter`."""
        raise NotImplementedError


cdef class Extras:
    """What most connections never need: a queue of unsent bytes, limits, a socket object."""

    def __cinit__(self):
        self.high = HIGH_WATER
        self.low = HIGH_WATER // 4


@cython.no_gc
cdef class Connection(Endpoint):
    """A served connection: an `asyncio.Transport` for TCP and Unix stream sockets.

    The core makes it at accept, or at the first byte if the listener is lazy. Programs don't.
    """

    # asyncio's own code asks for this.
    _start_tls_compatible = True

    def __init__(self):
        raise TypeError("connections are made by the accept loop")

    cdef object loop(self):
        """Return the loop that serves it; after its end the running loop, which is the same."""
        return asyncio.get_running_loop() if self.owner == NULL else (<Engine>self.owner).loop

    cdef AcceptorState *state(self) except NULL:
        return self.engine().acceptors[self.slot().acceptor]

    cdef Acceptor acceptor(self):
        return <Acceptor>self.engine().owners[self.slot().acceptor]

    # -- from the engine

    cdef int start(self) except -1:
        if self.call_factory():
            self.connect()
        return 0

    cdef bint call_factory(self) except -1:
        """Make the protocol object; return False if that failed and the connection is gone."""
        cdef Acceptor acceptor = self.acceptor()
        # asyncio copies the server's context for the factory, and copies that (with what the
        # factory has left in it) for connection_made and again for data_received. A copy is kept
        # only if the factory has changed something, so that an idle connection pays for none.
        # (Under TLS the first byte may have come before: then this runs in its context.)
        entered = ONE_CONTEXT and self.context is not None
        context = self.context if entered else PyContext_Copy(acceptor.context)
        if not entered:
            PyContext_Enter(context)
        try:
            protocol = acceptor.factory(self) if acceptor.with_connection else acceptor.factory()
        except BaseException as exc:
            self.flags |= CLOSING | LOST
            self.give_back()
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            self.loop().call_exception_handler({
                "message": "Error on transport creation for incoming connection",
                "exception": exc,
            })
            return False
        finally:
            if not entered:
                PyContext_Exit(context)
        if self.fd < 0:
            # The factory closed the engine.
            return False
        self.use_protocol(protocol)
        if context != acceptor.context:
            self.context = context
        return True

    cdef int connect(self) except -1:
        """Call connection_made; receive from now on."""
        cdef Acceptor acceptor = self.acceptor()
        cdef AcceptorState *state = self.state()
        cdef Slot *slot = self.slot()
        context = acceptor.context if self.context is None else self.context
        if not ONE_CONTEXT or self.context is None:
            context = PyContext_Copy(context)
        PyContext_Enter(context)
        try:
            if slot.offset < state.replies[REPLY_GREETING].size:
                self.queue(acceptor.replies[REPLY_GREETING], slot.offset)
            self.flags |= CONNECTED
            try:
                self.protocol.connection_made(self)
            except BaseException as exc:
                self.update_watch()
                self.report("Exception in callback connection_made()", exc)
        finally:
            PyContext_Exit(context)
        if ONE_CONTEXT and self.fd >= 0 and context != acceptor.context:
            self.context = context
        self.update_watch()
        return 0

    cdef object own_context(self):
        """Return the context of its callbacks; it is made when it is first needed."""
        if self.context is None:
            self.context = PyContext_Copy(self.acceptor().context)
        return self.context

    cdef int use_callers_context(self) except -1:
        """Receive in the caller's context from now on, if that is how asyncio does it."""
        if not ONE_CONTEXT:
            self.context = PyContext_CopyCurrent()
        return 0

    cdef int event(self, uint32_t events) except -1:
        if not self.slot().flags & (FLAG_IN | FLAG_OUT):
            return self.check_loss(events)
        if self.slot().flags & FLAG_OUT \
                and events & <uint32_t>(EPOLLOUT | EPOLLERR | EPOLLHUP):
            if ONE_CONTEXT:
                context = self.own_context()
            else:
                # As in asyncio: in the context of the code that wrote what had to wait.
                context = self.extras.context
                if context is None:
                    context = PyContext_CopyCurrent()
            PyContext_Enter(context)
            try:
                self.flush()
            finally:
                PyContext_Exit(context)
        if self.fd >= 0 and self.slot().flags & FLAG_IN \
                and events & <uint32_t>(EPOLLIN | EPOLLERR | EPOLLHUP):
            context = self.own_context()
            PyContext_Enter(context)
            try:
                if self.flags & BUFFERED:
                    self.receive_into()
                else:
                    self.receive()
            finally:
                PyContext_Exit(context)
        return 0

    cdef int check_loss(self, uint32_t events) except -1:
        """End a connection that is lost while it neither reads nor has anything to send."""
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if self.flags & LOST or not events & <uint32_t>(EPOLLERR | EPOLLHUP):
            return 0
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 or error == 0:
            if self.flags & WRITE_EOF or not events & <uint32_t>EPOLLHUP \
                    or not self.slot().flags & (FLAG_INET | FLAG_INET6):
                # Both sides have ended, or the peer has closed a Unix socket: what it sent before
                # that is still to be read.
                return 0
            # The error has already been fetched.
            error = ECONNRESET
        context = self.context
        if context is None:
            context = PyContext_Copy(self.acceptor().context)
        PyContext_Enter(context)
        try:
            return self.fatal_errno(error, "Fatal read error on socket transport")
        finally:
            PyContext_Exit(context)

    cdef int expired(self, bint first_byte) except -1:
        cdef AcceptorState *state = self.state()
        cdef Acceptor acceptor = self.acceptor()
        if self.flags & CLOSING:
            # We have closed it, and the peer does not read the rest.
            return self.force_close(None)
        if self.flags & UPGRADING:
            return self.start_tls_timed_out(state)
        working = self.protocol_is("working", self.protocol_is("busy", False))
        if self.fd < 0 or self.flags & CLOSING:
            # The protocol, when asked, closed the connection or the whole engine.
            return 0
        if working:
            # The client is waiting for us.
            time = self.current_idle()
            self.engine().set_deadline(self.fd, time if time else state.first_byte)
            return 0
        if self.own_idle and not first_byte:
            if self.goes_on():
                if self.fd >= 0 and not self.flags & CLOSING:
                    self.engine().set_deadline(self.fd, self.current_idle())
                return 0
            if self.fd < 0 or self.flags & CLOSING:
                return 0
        state.timed_out += 1
        self.flags |= TIMED_OUT
        self.engine().record(R_TIMED_OUT, state, self.fd, 1)
        return self.say_farewell(acceptor.replies[
            REPLY_FIRST_BYTE if first_byte else REPLY_IDLE])

    cdef int start_tls_timed_out(self, AcceptorState *state) except -1:
        """The peer did not read in time what was to be sent before the handshake."""
        cdef Extras extras = self.extras
        exc = ConnectionAbortedError(
            f"SSL handshake is taking longer than {extras.security.handshake_time / 1000.0:g} "
            "seconds: aborting the connection")
        state.handshake_failures += 1
        self.engine().record(R_HANDSHAKE, state, self.fd, 1)
        waiter = extras.waiter
        extras.waiter = None
        if not waiter.done():
            waiter.set_exception(exc)
        return self.fatal(exc, "SSL handshake failed")

    cdef int drain(self) except -1:
        if self.flags & CLOSING:
            return 1
        if self.protocol_is("busy", False):
            return 1
        if self.fd < 0 or self.flags & CLOSING:
            return 0
        text = self.last_words()
        if self.fd < 0 or self.flags & CLOSING:
            return 0
        self.say_farewell(text)
        return 0

    cdef int close_with_farewell(self) except -1:
        cdef bytes text
        if self.flags & CLOSING:
            return 0
        text = self.last_words()
        if self.fd < 0 or self.flags & CLOSING:
            return 0
        if text:
            return self.say_farewell(text)
        self.close()
        return 0

    cdef int say_farewell(self, bytes text) except -1:
        if text and not self.flags & (WRITE_EOF | UPGRADING):
            self.write(text)
        if not self.flags & CLOSING:
            self.close()
        if self.fd >= 0 and not self.flags & LOST:
            self.set_farewell_deadline()
        return 0

    cdef int set_farewell_deadline(self) except -1:
        self.engine().set_deadline(self.fd, FAREWELL_TIME)
        return 0

    cdef uint32_t current_idle(self) except? 0xFFFFFFFF:
        """Return the milliseconds after which a silent peer is idle, 0 for never."""
        return self.own_idle if self.own_idle else self.state().idle

    cdef bint goes_on(self) except -1:
        """Ask a protocol that has set `idle_time` whether the connection may go on."""
        context = self.own_context()
        PyContext_Enter(context)
        try:
            return bool(self.protocol.idle_expired())
        except Exception as exc:
            self.report("protocol.idle_expired failed", exc)
            return False
        finally:
            PyContext_Exit(context)

    cdef bint protocol_is(self, str attribute, bint default) except -1:
        """Ask the protocol whether it is `busy` or `working` (see Handler.connection)."""
        try:
            return bool(getattr(self.protocol, attribute, default))
        except Exception as exc:
            self.report(f"protocol.{attribute} failed", exc)
            return False

    cdef int abort_now(self) except -1:
        return self.force_close(None)

    cdef int abort_with_farewell(self) except -1:
        cdef bytes text
        if self.flags & LOST:
            return 0
        if not self.flags & (CLOSING | WRITE_EOF | UPGRADING):
            text = self.last_words()
            if self.fd < 0 or self.flags & LOST:
                return 0
            if text:
                # After what is queued; whatever cannot be sent now will be dropped.
                self.write(text)
                if self.fd >= 0:
                    # Unread bytes would turn the close into a reset that overtakes the text.
                    recv(self.fd, self.engine().buffer, RECEIVE_SIZE, MSG_DONTWAIT)
        return self.force_close(None)

    cdef bytes last_words(self):
        """Return the farewell for a shutdown of the server: the protocol's, or the canned one."""
        self.flags |= SERVER_SHUTDOWN
        try:
            words = getattr(self.protocol, "last_words", None)
        except Exception as exc:
            self.report("protocol.last_words failed", exc)
            return b""
        return words if type(words) is bytes else <bytes>self.acceptor().replies[REPLY_SHUTDOWN]

    cdef int engine_closed(self) except -1:
        """Forget the connection; like asyncio's, the protocol is not told."""
        self.flags |= CLOSING | LOST
        if self.extras is not None:
            # Nor is the code that waits for TLS.
            self.extras.waiter = None
        try:
            self.remember()
        finally:
            self.fd = -1
            self.owner = NULL
            self.protocol = None
            self.context = None
        return 0

    # -- receiving

    cdef int update_watch(self) except -2:
        """Let epoll report what the connection waits for now; return -1 if the kernel refuses."""
        cdef int wanted = 0
        if self.fd < 0 or self.flags & LOST:
            return 0
        if not self.flags & (CLOSING | PAUSED | PEER_EOF | UPGRADING):
            wanted = FLAG_IN
        if self.extras is not None and self.extras.size:
            wanted |= FLAG_OUT
        if wanted == 0 and not self.state().notice_loss:
            self.engine().unwatch(self.fd)
        elif self.engine().watch(self.fd, wanted) < 0:
            self.fatal_errno(errno, "Fatal error on registering the connection with epoll")
            return -1
        return 0

    cdef int input_arrived(self) except -1:
        """Note that the peer has sent something: `first_byte` is over, `idle` starts again."""
        cdef AcceptorState *state = self.state()
        self.slot().flags |= FLAG_SPOKE
        if self.own_idle or state.idle:
            self.engine().set_deadline(self.fd, self.own_idle if self.own_idle else state.idle)
        elif state.first_byte:
            self.slot().deadline = 0
        return 0

    cdef int receive(self) except -1:
        cdef ssize_t got = recv(self.fd, self.engine().buffer, RECEIVE_SIZE, 0)
        if got > 0:
            self.input_arrived()
            return self.deliver(PyBytes_FromStringAndSize(self.engine().buffer, got))
        if got == 0:
            return self.end_of_input()
        if errno != EAGAIN and errno != EINTR:
            return self.fatal_errno(errno, "Fatal read error on socket transport")
        return 0

    cdef int deliver(self, bytes data) except -1:
        try:
            self.protocol.data_received(data)
        except BaseException as exc:
            return self.fatal(exc, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int receive_into(self) except -1:
        cdef Py_buffer view
        cdef ssize_t got
        cdef int error
        try:
            target = self.protocol.get_buffer(-1)
            if not len(target):
                raise RuntimeError("get_buffer() returned an empty buffer")
        except BaseException as exc:
            return self.fatal(exc, "Fatal error: protocol.get_buffer() call failed.")
        try:
            PyObject_GetBuffer(target, &view, PyBUF_WRITABLE)
        except (BufferError, TypeError):
            # The message of socket.recv_into, which asyncio calls.
            return self.fatal(
                TypeError("recv_into() argument 1 must be read-write bytes-like object, "
                          f"not {type(target).__name__}"),
                "Fatal read error on socket transport")
        got = recv(self.fd, view.buf, view.len, 0)
        error = errno
        PyBuffer_Release(&view)
        if got == 0:
            return self.end_of_input()
        if got < 0:
            if error != EAGAIN and error != EINTR:
                return self.fatal_errno(error, "Fatal read error on socket transport")
            return 0
        self.input_arrived()
        try:
            self.protocol.buffer_updated(got)
        except BaseException as exc:
            return self.fatal(exc, "Fatal error: protocol.buffer_updated() call failed.")
        return 0

    cdef int end_of_input(self) except -1:
        try:
            keep_open = self.protocol.eof_received()
        except BaseException as exc:
            return self.fatal(exc, "Fatal error: protocol.eof_received() call failed.")
        if self.fd < 0:
            return 0
        if keep_open:
            self.flags |= PEER_EOF
            self.update_watch()
        else:
            self.close()
        return 0

    def pause_reading(self):
        """Stop calling data_received until `resume_reading`. May be called repeatedly."""
        if self.flags & (CLOSING | PAUSED):
            if self.extras is not None and self.extras.successor is not None:
                self.extras.successor.pause_reading()
            return
        self.flags |= PAUSED
        self.update_watch()

    def resume_reading(self):
        """Receive again. May be called repeatedly."""
        if self.flags & CLOSING or not self.flags & PAUSED:
            if self.extras is not None and self.extras.successor is not None:
                self.extras.successor.resume_reading()
            return
        self.flags &= ~PAUSED
        # asyncio adds its reader again, in the caller's context. It does so even after the end of
        # input, so that eof_received is called once more.
        self.flags &= ~PEER_EOF
        self.use_callers_context()
        self.update_watch()

    def is_reading(self):
        """Return True unless paused or closing."""
        return not self.flags & (CLOSING | PAUSED)

    # -- sending

    def write(self, data):
        """Send bytes; what the kernel does not take at once is queued and sent later.

        Raises:
            TypeError: not bytes, bytearray or memoryview.
            RuntimeError: after `write_eof` or `start_tls`.
        """
        cdef ssize_t sent = 0
        cdef Py_ssize_t size
        cdef const char *start
        cdef Py_buffer view
        cdef bytes rest
        cdef int error
        if not isinstance(data, (bytes, bytearray, memoryview)):
            # asyncio's own check, because the message depends on the version.
            _SelectorSocketTransport.write(self, data)
            raise TypeError(f"not bytes: {type(data).__name__}")
        if self.flags & (WRITE_EOF | UPGRADING):
            raise RuntimeError("Cannot call write() after write_eof()" if self.flags & WRITE_EOF
                               else "Cannot call write() after start_tls()")
        if not data:
            return
        if self.flags & LOST:
            self.late_write()
            return
        if type(data) is not bytes:
            # Copied, because the caller may change it after the call.
            if isinstance(data, memoryview) and not data.c_contiguous:
                data = bytes(data)
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            start = <const char *>view.buf
            size = view.len
        else:
            start = PyBytes_AS_STRING(data)
            size = PyBytes_GET_SIZE(data)
        error = 0
        if self.extras is None or self.extras.size == 0:
            sent = send(self.fd, start, size, MSG_NOSIGNAL)
            if sent < 0:
                error = errno
                sent = 0
        if type(data) is not bytes:
            rest = None
            if sent < size:
                rest = PyBytes_FromStringAndSize(start + sent, size - sent)
            PyBuffer_Release(&view)
            size -= sent
            sent = 0
        else:
            rest = <bytes>data
        if error and error != EAGAIN and error != EINTR:
            self.fatal_errno(error, "Fatal write error on socket transport")
            return
        if sent < size:
            self.queue(rest, sent)
            self.update_watch()
            self.maybe_pause()

    def writelines(self, list_of_data):
        """Send several pieces with as few system calls as the kernel allows."""
        if self.flags & (WRITE_EOF | UPGRADING):
            raise RuntimeError("Cannot call writelines() after write_eof()"
                               if self.flags & WRITE_EOF
                               else "Cannot call writelines() after start_tls()")
        pieces = []
        for data in list_of_data:
            if type(data) is not bytes:
                data = bytes(memoryview(data))
            if data:
                pieces.append(data)
        if not pieces:
            return
        if self.flags & LOST:
            self.late_write()
            return
        waiting = self.extras is not None and self.extras.size
        for piece in pieces:
            self.queue(piece, 0)
        if not waiting:
            self.flush()
        if self.fd >= 0:
            self.update_watch()
            self.maybe_pause()

    cdef int late_write(self) except -1:
        # asyncio counts the loss itself as the first one.
        if self.flags // LATE_WRITES + 1 >= LOG_THRESHOLD:
            logger.warning("socket.send() raised exception.")
        else:
            self.flags += LATE_WRITES
        return 0

    cdef Extras need_extras(self):
        if self.extras is None:
            self.extras = Extras.__new__(Extras)
        return self.extras

    cdef int queue(self, bytes rest, Py_ssize_t offset) except -1:
        """Append to the queue what follows `offset`."""
        cdef Extras extras = self.need_extras()
        if extras.chunks is None:
            extras.chunks = []
        if extras.size == 0:
            if not ONE_CONTEXT:
                extras.context = PyContext_CopyCurrent()
            extras.chunks.clear()
            extras.first = 0
            extras.offset = offset
        elif offset:
            rest = rest[offset:]
            offset = 0
        extras.chunks.append(rest)
        extras.size += len(rest) - offset
        return 0

    cdef int flush(self) except -1:
        """Send as much of the queue as the kernel takes."""
        cdef Extras extras = self.extras
        cdef iovec_t parts[CHUNKS]
        cdef msghdr_t message
        cdef Py_ssize_t i, count, length
        cdef ssize_t sent
        cdef bytes chunk
        if extras is None or extras.size == 0 or self.flags & LOST:
            return self.update_watch()
        count = min(<Py_ssize_t>CHUNKS, len(extras.chunks) - extras.first)
        for i in range(count):
            chunk = <bytes>extras.chunks[extras.first + i]
            parts[i].iov_base = PyBytes_AS_STRING(chunk)
            parts[i].iov_len = PyBytes_GET_SIZE(chunk)
        parts[0].iov_base = <char *>parts[0].iov_base + extras.offset
        parts[0].iov_len -= extras.offset
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        message.msg_iovlen = count
        sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            return self.fatal_errno(errno, "Fatal write error on socket transport")
        extras.size -= sent
        if self.current_idle() and not self.flags & UPGRADING:
            # A peer that takes what we send is not idle.
            self.engine().tick()
            self.engine().set_deadline(self.fd, self.current_idle())
        while sent > 0:
            length = len(<bytes>extras.chunks[extras.first]) - extras.offset
            if sent < length:
                extras.offset += sent
                break
            sent -= length
            extras.chunks[extras.first] = None
            extras.first += 1
            extras.offset = 0
        if extras.size == 0:
            extras.chunks = extras.context = None
            extras.first = 0
        elif extras.first >= 256 and extras.first * 2 > len(extras.chunks):
            del extras.chunks[:extras.first]
            extras.first = 0
        self.maybe_resume()
        if extras.size or self.fd < 0 or self.flags & LOST:
            return 0
        self.update_watch()
        if self.flags & CLOSING:
            self.flags |= LOST
            self.lost(None)
        elif self.flags & UPGRADING:
            self.hand_over()
        elif self.flags & WRITE_EOF:
            # A failure means a reset, which the next event will report.
            shutdown(self.fd, SHUT_WR)
        return 0

    def write_eof(self):
        """Shut down the sending side once everything is sent.

        Raises:
            OSError: the peer has reset the connection.
        """
        if self.flags & (CLOSING | WRITE_EOF):
            return
        self.flags |= WRITE_EOF
        if (self.extras is None or self.extras.size == 0) and shutdown(self.fd, SHUT_WR) < 0:
            raise errno_error(errno)

    def can_write_eof(self):
        """Return True."""
        return True

    @property
    def idle_time(self):
        """Seconds that the peer may be silent, 0 for any time: those of the listener
        (`timeout.idle`), unless the protocol sets its own; 0 sets those of the listener again.

        The time begins when it is set, and with all that the peer sends. When the protocol's own is
        over, the protocol's method `idle_expired` is called; if it returns true, the time begins
        again, otherwise the peer gets the farewell of an idle one.

        Raises:
            ValueError: it is negative.
        """
        return 0.0 if self.fd < 0 else self.current_idle() / 1000.0

    @idle_time.setter
    def idle_time(self, double seconds):
        self.own_idle = milliseconds(seconds)
        if self.fd < 0 or self.flags & (CLOSING | UPGRADING):
            return
        if self.slot().flags & FLAG_SPOKE:
            self.engine().tick()
            self.engine().set_deadline(self.fd, self.current_idle())

    def get_write_buffer_size(self):
        """Return the number of bytes that wait to be sent."""
        return 0 if self.extras is None else self.extras.size

    def get_write_buffer_limits(self):
        """Return (low, high) in bytes."""
        if self.extras is None:
            return (HIGH_WATER // 4, HIGH_WATER)
        return (self.extras.low, self.extras.high)

    def set_write_buffer_limits(self, high=None, low=None):
        """Set when the protocol is paused and resumed, in bytes (asyncio.WriteTransport)."""
        cdef Extras extras
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        extras = self.need_extras()
        extras.high = high
        extras.low = low
        self.maybe_pause()

    @property
    def _protocol_paused(self):
        """For asyncio: whether pause_writing() was called last, and not resume_writing()."""
        return bool(self.flags & PROTOCOL_PAUSED)

    cdef int maybe_pause(self) except -1:
        if self.extras is None or self.extras.size <= self.extras.high \
                or self.flags & PROTOCOL_PAUSED or self.protocol is None:
            return 0
        self.flags |= PROTOCOL_PAUSED
        try:
            self.protocol.pause_writing()
        except BaseException as exc:
            self.report("protocol.pause_writing() failed", exc)
        return 0

    cdef int maybe_resume(self) except -1:
        if not self.flags & PROTOCOL_PAUSED or self.extras.size > self.extras.low:
            return 0
        self.flags &= ~PROTOCOL_PAUSED
        try:
            self.protocol.resume_writing()
        except BaseException as exc:
            self.report("protocol.resume_writing() failed", exc)
        return 0

    # -- STARTTLS

    def start_tls(self, Security settings not None):
        """Speak TLS from now on, as the server.

        Nothing more is received in clear text after this call. What a client has sent after its
        STARTTLS command is therefore taken for a handshake, and fails (RFC 3207 section 4.2 and
        CVE-2011-0411). The handshake begins when everything that was written has been sent.

        Args:
            settings: certificate, versions, timeouts.

        Returns:
            A future of the `TlsConnection`, which has the same protocol object. connection_made is
            not called again; data_received is called for the first time in the iteration of the
            loop after the future's callbacks. If the handshake fails, the future and
            connection_lost get the error (`ssl.SSLError`, `ConnectionError`).

        Raises:
            RuntimeError: after write_eof(), or called a second time.
            ConnectionError: the connection is closing.
        """
        cdef Extras extras
        if self.flags & (WRITE_EOF | UPGRADING) \
                or self.extras is not None and self.extras.successor is not None:
            raise RuntimeError("Cannot call start_tls() after write_eof()"
                               if self.flags & WRITE_EOF
                               else "start_tls() was called already")
        if self.flags & CLOSING:
            raise ConnectionAbortedError("Cannot start TLS: the connection is closing")
        extras = self.need_extras()
        extras.security = settings
        waiter = extras.waiter = self.loop().create_future()
        self.flags |= UPGRADING
        self.engine().tick()
        self.engine().set_deadline(self.fd, settings.handshake_time)
        if extras.size:
            self.update_watch()
        else:
            self.hand_over()
        return waiter

    cdef int hand_over(self) except -1:
        cdef Extras extras = self.extras
        waiter = extras.waiter
        extras.waiter = None
        extras.security.take_over(self, waiter)
        return 0

    # -- ending

    def close(self):
        """Stop receiving, send what is queued, then call connection_lost(None)."""
        if self.flags & CLOSING:
            if self.extras is not None and self.extras.successor is not None:
                self.extras.successor.close()
            return
        self.flags |= CLOSING
        if self.extras is None or self.extras.size == 0:
            self.flags |= LOST
            self.engine().unwatch(self.fd)
            self.schedule_lost(None)
        else:
            self.update_watch()

    def abort(self):
        """Drop what is queued and call connection_lost(None)."""
        if self.extras is not None and self.extras.successor is not None:
            self.extras.successor.abort()
        else:
            self.force_close(None)

    def is_closing(self):
        """Return True once `close` or `abort` was called or the connection broke."""
        if self.extras is not None and self.extras.successor is not None:
            return self.extras.successor.is_closing()
        return bool(self.flags & CLOSING)

    def _force_close(self, exc):
        """For asyncio.sslproto: end the transport with an error."""
        self.force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        """For asyncio: the transport has failed."""
        self.fatal(exc, message)

    cdef int fatal_errno(self, int error, str message) except -1:
        return self.fatal(errno_error(error), message)

    cdef int fatal(self, exc, str message) except -1:
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise exc
        if isinstance(exc, OSError):
            if self.loop().get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.report(message, exc)
        return self.force_close(exc)

    cdef int report(self, str message, exc) except -1:
        """Report to the loop's exception handler; raise an exception that ends programs."""
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise exc
        self.loop().call_exception_handler({
            "message": message, "exception": exc, "transport": self, "protocol": self.protocol,
        })
        return 0

    cdef int force_close(self, exc) except -1:
        if self.flags & LOST:
            return 0
        if self.extras is not None:
            self.extras.chunks = self.extras.context = None
            self.extras.first = self.extras.size = self.extras.offset = 0
        self.flags |= CLOSING | LOST | ABORTED
        self.engine().unwatch(self.fd)
        return self.schedule_lost(exc)

    cdef int schedule_lost(self, exc) except -1:
        self.slot().deadline = 0
        try:
            if ONE_CONTEXT:
                self.loop().call_soon(self._call_connection_lost, exc, context=self.own_context())
            else:
                self.loop().call_soon(self._call_connection_lost, exc)
        except BaseException:
            # The loop is closed and will not call back.
            self.give_back()
            raise
        return 0

    def _call_connection_lost(self, exc):
        """Tell the protocol, then close. Only the loop calls this."""
        if self.fd < 0:
            return
        try:
            if self.flags & CONNECTED:
                self.protocol.connection_lost(exc)
        finally:
            self.give_back()

    cdef int lost(self, exc) except -1:
        """Do the same, for the engine, where nobody else would report an exception."""
        try:
            self._call_connection_lost(exc)
        except BaseException as error:
            self.report("Exception in callback connection_lost()", error)
        return 0

    cdef void give_back(self) noexcept:
        cdef int fd = self.fd
        cdef Engine engine
        if fd < 0:
            return
        engine = <Engine>self.owner
        self.flags |= CLOSING | LOST
        try:
            self.remember()
        finally:
            # Whatever fails, the descriptor and its place must be given back.
            self.fd = -1
            self.owner = NULL
            self.protocol = None
            self.context = None
            engine.finish(fd, not self.flags & ABORTED, self.flags & (TIMED_OUT | SERVER_SHUTDOWN))
            engine.retire_acceptors()

    cdef int remember(self) except -1:
        """Keep what may still be asked for, and detach the socket object."""
        cdef Extras extras = self.need_extras()
        extras.chunks = extras.context = None
        extras.size = extras.first = extras.offset = 0
        self.keep_names()
        if extras.sock is not None:
            extras.sock.detach()
        if extras.waiter is not None:
            waiter = extras.waiter
            extras.waiter = None
            if not waiter.done():
                waiter.set_exception(ConnectionAbortedError("closed before TLS had started"))
        return 0

    cdef int keep_names(self) except -1:
        cdef Extras extras = self.need_extras()
        cdef ConnectionAcceptor acceptor = <ConnectionAcceptor>self.acceptor()
        extras.peername_path = self.get_peername(&extras.peername)
        if acceptor.sockname_fixed:
            extras.sockname = acceptor.sockname
        else:
            extras.sockname_path = get_name(self.fd, False, &extras.sockname)
        return 0

    # -- asking

    cdef int use_protocol(self, protocol) except -1:
        self.protocol = protocol
        if isinstance(protocol, BufferedProtocol):
            self.flags |= BUFFERED
        else:
            self.flags &= ~BUFFERED
        return 0

    def set_protocol(self, protocol):
        """Let another protocol object receive from now on."""
        self.use_protocol(protocol)

    def get_protocol(self):
        """Return the protocol object, None after connection_lost."""
        return self.protocol

    cdef bytes get_peername(self, SocketName *name):
        """Get the peer's address from the slot, because the kernel forgets it after a reset; ask
        the kernel for a Unix socket's, because the slot has no room for a path."""
        cdef Slot *slot = self.slot()
        if not slot.flags & (FLAG_INET | FLAG_INET6):
            return get_name(self.fd, True, name)
        name.length = 4 if slot.flags & FLAG_INET else 16
        name.port = slot.port
        name.scope = self.engine().extra[self.fd].scope if slot.flags & FLAG_EXTRA else 0
        memcpy(name.numbers, slot.address, sizeof(name.numbers))
        return None

    cdef dict info(self):
        """Return what get_extra_info() has computed before, by name."""
        cdef Extras extras = self.need_extras()
        if extras.info is None:
            extras.info = {}
        return extras.info

    cdef object socket_view(self):
        """Return a socket object that does not own the descriptor."""
        cdef Extras extras = self.need_extras()
        view = self.info().get("socket")
        if view is not None:
            return view
        if self.fd >= 0:
            listening = self.acceptor().sock
            extras.sock = socket.socket(listening.family, listening.type, listening.proto,
                                        fileno=self.fd)
        else:
            # The connection has ended: a closed socket of the same family, as in asyncio.
            extras.sock = socket.socket(FAMILIES[extras.peername.length])
            extras.sock.close()
        view = extras.info["socket"] = TransportSocket(extras.sock)
        return view

    def get_extra_info(self, name, default=None):
        """Return what is known of the connection (asyncio.BaseTransport.get_extra_info).

        Args:
            name: ``peername``, ``sockname``, ``socket``, ``listener`` (the id of the listener,
                None for a server made without one; after the end only if it was asked for before),
                or ``ended_by`` (``timeout`` or ``shutdown``, if the server ends the connection for
                this reason).
            default: returned for everything else.
        """
        cdef SocketName address
        cdef bytes path
        if name == "peername":
            if self.fd < 0:
                return name_of(&self.extras.peername, self.extras.peername_path)
            path = self.get_peername(&address)
            return name_of(&address, path)
        if name == "sockname":
            if self.fd < 0:
                return name_of(&self.extras.sockname, self.extras.sockname_path)
            path = get_name(self.fd, False, &address)
            return name_of(&address, path)
        if name == "socket":
            return self.socket_view()
        if name == "listener":
            known = self.info()
            if name not in known:
                if self.fd < 0:
                    return default
                known[name] = self.acceptor().listener
            return known[name]
        if name == "ended_by" and self.flags & (TIMED_OUT | SERVER_SHUTDOWN):
            return "timeout" if self.flags & TIMED_OUT else "shutdown"
        return default

    def __repr__(self):
        cdef SocketName address
        if self.fd < 0:
            return "<fastlisten.Connection closed>"
        words = [f"fd={self.fd}"]
        if self.flags & CLOSING:
            words.append("closing")
        elif self.flags & PAUSED:
            words.append("paused")
        if self.extras is not None and self.extras.size:
            words.append(f"bufsize={self.extras.size}")
        path = self.get_peername(&address)
        return f"<fastlisten.Connection {' '.join(words)} peer={name_of(&address, path)!r}>"


cdef class ConnectionAcceptor(Acceptor):
    """An acceptor that makes connections without TLS."""

    def __init__(self, engine, sock, factory, **options):
        Acceptor.__init__(self, engine, sock, factory, **options)
        cdef int i
        if sock is None:
            return
        get_name(sock.fileno(), False, &self.sockname)
        # If the socket is bound to one address, all its connections have that address, and the
        # kernel need not be asked. Wildcards end in four zeros, ::ffff:0.0.0.0 too.
        for i in range(self.sockname.length - 4, self.sockname.length):
            if self.sockname.length and self.sockname.numbers[i]:
                self.sockname_fixed = not is_transparent(sock)

    cdef Endpoint endpoint(self, int fd):
        return Connection.__new__(Connection)

    def attach(self, sock, protocol):
        """Serve a connection that was accepted elsewhere.

        Args:
            sock: a connected, non-blocking stream socket; closed with the connection.
            protocol: its connection_made is called before this returns.

        Returns:
            The `Connection`.

        Raises:
            ValueError: the descriptor is out of range, or already being served.
            RuntimeError: the acceptor is closed.
        """
        cdef Connection connection = Connection.__new__(Connection)
        self.attach_connection(connection, sock, protocol)
        connection.connect()
        return connection

    cdef int attach_connection(self, Connection connection, sock, protocol) except -1:
        cdef int fd = sock.fileno()
        cdef Extras extras
        self.engine.add_connection(self, fd)
        self.engine.set_endpoint(fd, connection)
        connection.context = PyContext_CopyCurrent()
        connection.use_protocol(protocol)
        extras = connection.need_extras()
        extras.sock = sock
        extras.info = {"socket": TransportSocket(sock)}
        return 0
