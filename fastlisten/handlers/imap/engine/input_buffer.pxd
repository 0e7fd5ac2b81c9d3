# The C layout of InputBuffer, for the compiled engine.
#
# Rules of the .pxd files here: as in handlers/smtp/engine/input_buffer.pxd. Numbers that clients
# name stay Python ints, and so do offsets that they are added to.

cimport cython

cdef class InputBuffer:
    cdef readonly bytes _buffer
    cdef bytes _dropped
    cdef Py_ssize_t _position
    cdef Py_ssize_t _searched
    cdef Py_ssize_t _skipped
    cdef readonly bint endless
    cdef readonly bytes head
    cdef readonly bint skipping

    cpdef receive(self, bytes data)
    cpdef discard(self)
    cpdef bytes take(self, most)
    cpdef forget_used(self)

    @cython.locals(buffer=bytes, start=Py_ssize_t, end=Py_ssize_t)
    cpdef bytes next_line(self, Py_ssize_t limit)
    cdef bint _skip(self) except -1
