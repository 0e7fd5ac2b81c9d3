"""The management application: health, metrics and control of a running server over HTTP.

    app             the ASGI application
    access          decides who may do what; token_file: the token
    operations      the table of operations, and the OpenAPI document
    schemas         listeners as JSON
    responses       what all responses have in common, and how a request is refused
    metrics         for Prometheus; mail_metrics: those of mail
    status_page     a page for browsers

Rules of this package: it uses HTTP and the server's `Control`, and does not depend on how a server
works.
"""
