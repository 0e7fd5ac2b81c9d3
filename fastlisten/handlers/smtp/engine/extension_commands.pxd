# C types for extension_commands.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine.smtp_session cimport Session
from fastlisten.handlers.smtp.engine.chunk_reader cimport ChunkReader

cpdef starttls(Session session, bytes verb, bytes argument)
cpdef auth(Session session, bytes verb, bytes argument)
cpdef bdat(Session session, bytes verb, bytes argument)
cdef _begin_chunk_of_message(Session session, ChunkReader chunks, size, final)
cpdef refuse_chunk(Session session, bytes answer)
