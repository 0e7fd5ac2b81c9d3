"""Helpers shared by test files. There are no tests here, and tests import nothing else of tests/.

For all tests
    waiting                   PATIENCE; until, eventually: wait for a condition
    loops                     the event loops; run, on_loops, run_virtually
    marks                     external, needs_ipv6: skip if something is missing
    netns                     network namespaces
    without_cryptography      a fixture: the package cryptography is not installed
    without_ipv6              runs a command as on a host without IPv6
    kernel                    a process's descriptors, sockets, CPU time and end, from the kernel
    other_user                a user without rights, and an interpreter that it can read
    logged                    log records by event
    isolation                 a home directory for the test run; fails it for files left elsewhere
    hypothesis_profiles       profiles of hypothesis
    figures                   what tests have counted, printed for the documentation

Clients
    raw_client                a raw socket driven by the loop
    smtp_client               a blocking SMTP client, one step at a time
    http                      HttpClient, and the application and handler that it talks to
    http_hostile              requests that must be refused
    websocket_frames          frames of websockets, as octets
    tls_client                a TLS client, step by step
    tls_probes                a TLS client and openssl s_client, for a served configuration
    tls_records               TLS 1.3 records that no library sends
    crowd                     many clients at once, for the native limit
    storm                     clients that come and go while workers die; the limit holds
    external_programs         other programs: run to their end, or driven by a dialogue
    endless_stream, fuzzing   numbered bytes; random operations on connections that exchange them

The native modules and the loop
    listener, tls_listener    a listening socket served by the core, with all its settings
    arena_memory, steps       other members of an arena: as memory, or instruction by instruction
    forked                    server processes made by fork
    told_handlers, workers    a supervisor and its workers, which say who serves
    worker_reloads            their configuration changed, and commands that are told to them
    attempts                  a client that connects to workers again and again
    queues                    accept queues of listening sockets, from the kernel
    scripted_workers          workers that answer a supervisor's requests, without processes
    traced_program, strace    a server under strace
    world, tls_world          a script run on asyncio's server and on ours
    loop_worlds               the same on whole event loops
    context_variable          a context variable that callbacks note and set
    starttls_protocol         a protocol that begins TLS in mid-connection

`fastlisten`, configured and served
    config                    configurations loaded for a fixed machine
    config_strategies         configurations for hypothesis
    page_samples              samples from the format's page
    reloading                 a server whose configuration tests rewrite and reload
    reload_cases              two values of every configuration key, and looks at which is used
    reload_looks              a handler that tells what its process uses of each
    registered                protocols and handlers as other packages register them
    environment               environments for programs
    server                    a configuration served on the running loop
    program                   `fastlisten` as a process
    staged_program            a process that waits at its stages
    real_server               a server of all protocols and its mail, for other projects' clients
    management                the management application, called as ASGI

Handlers and applications for configurations
    serving_handlers, tls_handlers, aiosmtpd_handlers, hanging_handlers, http_application
    hanging_import            an application whose import does not end
    scripted_lifespan         an ASGI lifespan that follows a script

Certificates
    certificates              the test run's authority, its certificates, handshakes in memory
    tls_contexts              contexts and certificate files of servers and clients on loopback
    configured_certificates   a configuration's certificates, and those that clients see

SMTP and mail
    smtp_harness              the smtp handler served in a thread, and dialogues of clients
    smtp_fixtures             fixtures that serve it
    engine_driver             the engine without a connection
    aiosmtpd                  handlers of aiosmtpd's kind, served by our controller or aiosmtpd's
    deliveries, logins        the post office and logins without a connection
    mail_store                accounts of the store; what must be true of files and rows
    killed_calls, store_kills  a process killed at every system call; changes of the store in one
    small_disk                the store on a filesystem that is full, or read-only
    store_crowd               processes that change an account and are killed at random
    dovecot_imap              Dovecot's IMAP process on messages of a test
    mime_messages             messages for the MIME parser, at random and CPython's own
    accounts                  accounts files, cheap password hashes, failing maildirs
    relay, scripted_relay     a relay with configurable replies, and one that sends anything

IMAP
    imap_direct               a session without a socket, over the store in memory
    imap_driver               the engine without a connection
    imap_expect               commands, and the responses that must come
    imap_fixtures             fixtures: a server for a file of tests, sessions, a mailbox
    imap_lines                command lines of the RFCs' examples, and odd ones made of them
    imap_models               clients that change one mailbox, and what each may be told
    imap_reader               takes responses apart
    imap_account              an account that `fastlisten serve` offers over imaps, for real clients
    dovecot_session           the same dialogues with Dovecot, and how answers are compared
    imap_dialogues            what mail programs say to an IMAP server
    imap_reports              carries out the cases of public bug reports about IMAP servers
    imap_sync                 what tests of IMAP synchronizers share: changes on both sides
    imap_server               the handler served in a thread, and a client that sees every line
    memory_store              a store in memory

Libraries and programs of other projects
    foreign, foreign_clients  servers of other projects on our loops, and their clients
    foreign_smtp              aiosmtpd's controllers
    documented_programs       programs of a documentation page
    benchmarks                the benchmarks' programs
"""
