# C types for answers.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cpdef accept(Session session, bytes reply)
cpdef reject(Session session, bytes reply)
cpdef challenge(Session session, bytes question)
cpdef answer(Session session, answers)
