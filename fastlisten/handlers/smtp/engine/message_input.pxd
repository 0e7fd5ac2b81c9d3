# C types for message_input.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine.chunk_reader cimport ChunkReader
from fastlisten.handlers.smtp.engine.input_buffer cimport InputBuffer
from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cdef object _COMMAND
cdef object _DISCARD
cdef object _SWALLOW

cpdef next_content(Session session)
cpdef next_chunk(Session session)
cpdef next_response(Session session)
