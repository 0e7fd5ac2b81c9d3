"""What test files share. There are no tests in here, and test files import nothing else of tests/.

For all tests
    waiting                   PATIENCE; until, eventually: wait for a condition
    loops                     the event loops; run, on_loops, run_virtually
    marks                     external, needs_ipv6: skip where something is missing
    netns                     network namespaces of a test's own
    without_cryptography      a fixture: the package cryptography is not installed
    without_ipv6              a command that runs another as on a host without IPv6
    kernel                    what the kernel says of descriptors, sockets, processor time, ends
    logged                    records of the log, by their events
    isolation                 the home of the test run; what is left behind fails it
    hypothesis_profiles       how long property-based tests look

Clients
    raw_client                a raw socket driven by the loop
    smtp_client               a blocking SMTP client, one step at a time
    http                      HttpClient, and the application and handler that it talks to
    http_hostile              requests that must be refused
    tls_client                the client's side of TLS, step by step
    tls_probes                a TLS client and openssl s_client, for a served configuration
    tls_records               records of TLS 1.3 that no library sends
    crowd                     many clients at once, for the native limit
    external_programs         programs of others: run, or talked to
    endless_stream, fuzzing   numbered bytes; random operations on connections that exchange them

The native modules and the loop
    listener, tls_listener    a listening socket served by the core, with all its settings
    forked                    server processes made by fork
    traced_program, strace    a server under strace
    world, tls_world          one script played on asyncio's server and on ours
    loop_worlds               the same on whole event loops
    context_variable          a context variable that callbacks note and set
    starttls_protocol         a protocol that begins TLS in mid-connection

`fastlisten`, configured and served
    config                    a machine that never differs, and short loads
    config_strategies         made-up configurations, for hypothesis
    page_samples              samples of the format's page
    registered                protocols and handlers that other packages register
    environment               the environments of programs
    server                    a configuration served on the running loop
    program                   `fastlisten` as a process
    staged_program            a process that stops where a test wants it to
    real_server               all protocols and their mail, for clients of other projects
    management                the management application, called as ASGI

Handlers and applications that configurations name
    serving_handlers, tls_handlers, aiosmtpd_handlers, hanging_handlers, http_application
    scripted_lifespan         an ASGI lifespan that follows a script

Certificates
    certificates              the authority of the test run, what it signs, handshakes in memory
    tls_contexts              contexts and certificate files of servers and clients on loopback
    configured_certificates   the certificates of a configuration, and what clients are shown

SMTP and mail
    smtp_harness              the smtp handler, served in a thread, and what clients say to it
    engine_driver             the engine without a connection
    aiosmtpd                  handlers of aiosmtpd's kind behind our controller or theirs
    deliveries, logins        the post office and logins without a connection
    accounts                  accounts files, cheap password hashes, maildirs that fail
    relay, scripted_relay     a relay that behaves, and one that says anything

Libraries and programs of other projects
    foreign, foreign_clients  servers of other projects on our loops, and how clients reach them
    foreign_smtp              aiosmtpd's controllers
    documented_programs       programs of a documentation page
    benchmarks                the benchmarks' programs
"""
