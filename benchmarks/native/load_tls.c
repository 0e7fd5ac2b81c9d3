/*
 * TLS of the load generator: sending and receiving on a connection, encrypted or not.
 *
 * Rules of this file: OpenSSL is used only here. Sessions are never resumed and certificates never
 * verified (the servers' are self-signed, and the client's work is not measured). If OpenSSL's
 * headers are missing, it is compiled without LOAD_WITH_TLS, and supports plain connections only.
 *
 * `stream_send` and `stream_recv` behave like send(2) and recv(2) on a non-blocking socket; a TLS
 * error is EPROTO. Data in OpenSSL's own buffers is returned before EAGAIN, so a caller that reads
 * until EAGAIN, or until it has all it expects, misses nothing.
 */

#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#ifdef LOAD_WITH_TLS

#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>

const bool tls_built = true;

static SSL_CTX *context;
static unsigned long long handshakes, resumed;
static char negotiated[256];

static void die(const char *what)
{
    fprintf(stderr, "loadgen: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

void tls_prepare(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL)
        die("SSL_CTX_new");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
}

struct ssl_st *tls_new(int fd)
{
    SSL *ssl = SSL_new(context);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1)
        die("SSL_new");
    SSL_set_connect_state(ssl);
    return ssl;
}

void tls_free(struct ssl_st *tls)
{
    SSL_free(tls);
}

/* Set errno to the reason of a failed call; returns what recv and send would return. */
static int outcome(SSL *ssl, int result)
{
    int number = errno, reason = SSL_get_error(ssl, result);
    ERR_clear_error();
    if (reason == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else
        errno = reason == SSL_ERROR_SYSCALL && number != 0 ? number : EPROTO;
    return -1;
}

/* Record what the first handshake negotiated. */
static void describe(SSL *ssl)
{
    int signature = NID_undef;
    SSL_get_peer_signature_type_nid(ssl, &signature);
#if OPENSSL_VERSION_NUMBER >= 0x30200000L
    /* The hybrid groups have no NID. */
    const char *group = SSL_get0_group_name(ssl);
#else
    int number = SSL_get_negotiated_group(ssl);
    const char *group = number == NID_undef ? NULL : OBJ_nid2sn(number);
#endif
    snprintf(negotiated, sizeof negotiated, "%s %s, %s, %s", SSL_get_version(ssl),
             SSL_get_cipher_name(ssl), group == NULL ? "no group" : group,
             signature == NID_undef                 ? "no signature"
             : signature == NID_X9_62_id_ecPublicKey ? "ECDSA"
                                                     : OBJ_nid2sn(signature));
    /* A missing name leaves an error in the queue, which the next SSL_get_error would find. */
    ERR_clear_error();
}

int tls_shake(struct ssl_st *tls, uint32_t *events)
{
    int result = SSL_do_handshake(tls);
    if (result == 1) {
        handshakes++;
        resumed += SSL_session_reused(tls) != 0;
        if (negotiated[0] == '\0')
            describe(tls);
        return 1;
    }
    *events = SSL_get_error(tls, result) == SSL_ERROR_WANT_WRITE ? EPOLLOUT : EPOLLIN;
    result = outcome(tls, result);
    if (result == 0)
        errno = EPROTO;
    return errno == EAGAIN ? 0 : -1;
}

void tls_say_goodbye(struct ssl_st *tls)
{
    if (SSL_shutdown(tls) < 0)
        ERR_clear_error();
}

ssize_t stream_send(int fd, struct ssl_st *tls, const char *bytes, size_t length)
{
    if (tls == NULL)
        return send(fd, bytes, length, MSG_NOSIGNAL);
    int sent = SSL_write(tls, bytes, (int)length);
    if (sent > 0)
        return sent;
    if (outcome(tls, sent) == 0)
        errno = EPIPE;
    return -1;
}

ssize_t stream_recv(int fd, struct ssl_st *tls, char *bytes, size_t length)
{
    if (tls == NULL)
        return recv(fd, bytes, length, 0);
    int got = SSL_read(tls, bytes, (int)length);
    return got > 0 ? got : outcome(tls, got);
}

void tls_report(void)
{
    if (context != NULL)
        printf(", \"tls\": {\"negotiated\": \"%s\", \"handshakes\": %llu, \"resumed\": %llu, "
               "\"library\": \"%s\"}",
               negotiated, handshakes, resumed, OpenSSL_version(OPENSSL_VERSION));
}

#else

const bool tls_built = false;

void tls_prepare(void)
{
}

struct ssl_st *tls_new(int fd)
{
    (void)fd;
    return NULL;
}

void tls_free(struct ssl_st *tls)
{
    (void)tls;
}

int tls_shake(struct ssl_st *tls, uint32_t *events)
{
    (void)tls;
    (void)events;
    return 1;
}

void tls_say_goodbye(struct ssl_st *tls)
{
    (void)tls;
}

ssize_t stream_send(int fd, struct ssl_st *tls, const char *bytes, size_t length)
{
    (void)tls;
    return send(fd, bytes, length, MSG_NOSIGNAL);
}

ssize_t stream_recv(int fd, struct ssl_st *tls, char *bytes, size_t length)
{
    (void)tls;
    return recv(fd, bytes, length, 0);
}

void tls_report(void)
{
}

#endif
