"""What several tests share: servers, clients, certificates, programs. No tests in here."""
