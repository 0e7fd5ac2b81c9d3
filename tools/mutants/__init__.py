"""Mutations: small changes to the package that some test must notice.

    python -m tools.mutants              all that have changed since they were last tried
    python -m tools.mutants core tls     those whose name contains one of these texts
    python -m tools.mutants --again      also those that have not changed

A mutation removes one bound, one order or one check; if no test fails then, nothing would keep a
later change from removing it. They stand in the `*.toml` files of this folder, a file per part of
the package:

    [[mutation]]
    name = "core: the bound of a parked refusal"
    file = "fastlisten/_core.pyx"
    old = "if got <= 0 or slot.offset + got >= PARKED_BYTES:"
    new = "if got <= 0:"
    tests = ["tests/native/test_core_refusal.py"]

`old` occurs exactly once in the file (tests/project/test_mutants.py watches over that), and `tests`
are the fewest files that should notice. A mutation that no test can notice has `survives`, the
reason; if a test notices it all the same, that is a mistake too.

    mutations.py    reading and checking the list
    copies.py       a copy of the repository in which mutations are applied, built and tested
    results.py      what is known from earlier runs
    __main__.py     the program
"""
