/*
 * The baseline with TLS: OpenSSL on the descriptor, epoll, one thread.
 *
 * Rules of this file: as in epoll_server.c, with OpenSSL's defaults: TLS 1.2 and 1.3, its list of
 * ciphers, session tickets (two per TLS 1.3 handshake), AUTO_RETRY. The only changes are those that
 * CPython's ssl module makes too: buffers are released while a connection is idle, and writes may
 * be partial. There is one SSL object per connection, from accept to close, and nothing else.
 *
 * It sends the greeting, if there is one, after the handshake, and echoes what arrives. It answers
 * close_notify with its own and closes; it also closes if the connection ends in any other way.
 *
 * Usage: epoll_tls_server --certificate FILE --key FILE [--greeting TEXT] [--backlog N]
 * Files in PEM. Otherwise as epoll_server.
 */

#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* One connection. */
struct secured {
    SSL *ssl;
    char *rest; /* a reply that did not fit into the socket's buffer */
    size_t sent, length;
    unsigned events; /* the events that epoll reports */
};

static struct server server;
static char buffer[SERVER_BUFFER];
static struct secured *secured; /* by descriptor */
static SSL_CTX *context;

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void end(int fd)
{
    SSL_free(secured[fd].ssl);
    free(secured[fd].rest);
    memset(&secured[fd], 0, sizeof secured[fd]);
    close(fd);
}

static void want(int fd, unsigned events)
{
    if (secured[fd].events == events)
        return;
    secured[fd].events = events;
    server_interest(&server, fd, EPOLL_CTL_MOD, events);
}

/* After a failed call: wait for the event that it needs, or close. */
static void failed(int fd, int result)
{
    int reason = SSL_get_error(secured[fd].ssl, result);
    if (reason == SSL_ERROR_WANT_READ)
        want(fd, EPOLLIN);
    else if (reason == SSL_ERROR_WANT_WRITE)
        want(fd, EPOLLOUT);
    else {
        if (reason == SSL_ERROR_ZERO_RETURN)
            SSL_shutdown(secured[fd].ssl);
        ERR_clear_error();
        end(fd);
    }
}

/* Send; what does not fit is kept, and reading stops until it is sent. False if it must wait. */
static int reply(int fd, const char *bytes, size_t length)
{
    struct secured *one = &secured[fd];
    while (length != 0) {
        int sent = SSL_write(one->ssl, bytes, (int)length);
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
            continue;
        }
        if (SSL_get_error(one->ssl, sent) == SSL_ERROR_WANT_WRITE) {
            one->rest = malloc(length);
            if (one->rest == NULL)
                server_die("malloc");
            memcpy(one->rest, bytes, length);
            one->sent = 0;
            one->length = length;
        }
        failed(fd, sent);
        return 0;
    }
    return 1;
}

static void resume(int fd)
{
    struct secured *one = &secured[fd];
    while (one->sent < one->length) {
        int sent = SSL_write(one->ssl, one->rest + one->sent, (int)(one->length - one->sent));
        if (sent <= 0) {
            failed(fd, sent);
            return;
        }
        one->sent += (size_t)sent;
    }
    free(one->rest);
    one->rest = NULL;
    want(fd, EPOLLIN);
}

/* Read until nothing is left: a call returns one record at most, and buffered records cause no
 * event. */
static void receive(int fd)
{
    SSL *ssl = secured[fd].ssl;
    do {
        int got = SSL_read(ssl, buffer, sizeof buffer);
        if (got <= 0) {
            failed(fd, got);
            return;
        }
        if (!reply(fd, buffer, (size_t)got))
            return;
    } while (SSL_pending(ssl) != 0);
}

static void shake(int fd)
{
    int result = SSL_do_handshake(secured[fd].ssl);
    if (result != 1) {
        failed(fd, result);
        return;
    }
    want(fd, EPOLLIN);
    if (server.greeting_length != 0)
        reply(fd, server.greeting, server.greeting_length);
}

static void accept_some(void)
{
    for (int count = 0; count < SERVER_ACCEPTS; count++) {
        int fd = server_accept(&server);
        if (fd < 0)
            return;
        SSL *ssl = SSL_new(context);
        if (ssl == NULL || SSL_set_fd(ssl, fd) != 1)
            die("SSL_new");
        SSL_set_accept_state(ssl);
        secured[fd].ssl = ssl;
        secured[fd].events = EPOLLIN;
        server_interest(&server, fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void prepare(void)
{
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, server.certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, server.key, SSL_FILETYPE_PEM) != 1)
        die("certificate and key");
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
}

int main(int count, char **words)
{
    static struct epoll_event events[SERVER_EVENTS];
    server_arguments(&server, count, words, 1);
    prepare();
    secured = server_table(sizeof *secured);
    server_listen(&server);
    for (;;) {
        int ready = epoll_wait(server.poller, events, SERVER_EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            server_die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == server.listener)
                accept_some();
            else if (fd == STDIN_FILENO)
                server_input();
            else if (!SSL_is_init_finished(secured[fd].ssl))
                shake(fd);
            else if (secured[fd].rest != NULL)
                resume(fd);
            else
                receive(fd);
        }
    }
}
