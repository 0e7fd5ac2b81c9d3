"""What mail clients need to know to set themselves up: where to read mail, where to submit it.

services   the services that a configuration offers to clients
documents  autoconfig (Mozilla) and autodiscover (Microsoft), as XML
records    DNS records (RFC 6186, RFC 8314)
"""
