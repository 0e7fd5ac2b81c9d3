"""The management application: health, metrics and control of a running server over HTTP.

    app             the ASGI application
    access          who may do what; token_file: the token
    operations      the table of operations, and the OpenAPI document
    schemas         listeners as JSON
    responses       what all responses have in common, and how a request is refused
    metrics         for Prometheus; mail_metrics: those of mail
    status_page     for a browser

Rules of this package: it knows HTTP and the server's `Control`, and nothing of how a server works.
"""
