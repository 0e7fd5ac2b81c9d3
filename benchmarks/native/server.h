/*
 * Declarations shared by the baseline servers: descriptors, epoll, the listening socket, greeting.
 *
 * Rules of this file: declarations only; server_net.c has the definitions. Of these functions only
 * `server_interest` is called per connection.
 */

#ifndef FASTLISTEN_SERVER_H
#define FASTLISTEN_SERVER_H

#include <stddef.h>

/* The most events, and accepts, per wake-up: enough to make the cost of the wake-up negligible, few
 * enough that accepting cannot starve open connections. */
enum { SERVER_EVENTS = 512, SERVER_ACCEPTS = 256 };

/* The size of the read buffer of the Python loops that it is compared with. */
enum { SERVER_BUFFER = 256 * 1024 };

/* The command line's settings. */
struct server {
    char greeting[512];
    size_t greeting_length;
    int backlog;
    const char *certificate, *key; /* PEM files, only for TLS */
    int poller, listener;
};

/* Print what failed, with errno, and exit. */
void server_die(const char *what);

/* Read the command line; the two files are required with `tls`, and not allowed without. */
void server_arguments(struct server *server, int count, char **words, int tls);

/* Raise the descriptor limit; return that many zeroed elements of a size. Untouched pages cost no
 * memory. */
void *server_table(size_t size);

/* Listen on an ephemeral port of 127.0.0.1, print the port, watch the socket and standard input. */
void server_listen(struct server *server);

/* epoll_ctl with the descriptor as its data. */
void server_interest(const struct server *server, int fd, int operation, unsigned events);

/* The next connection, or -1 if none is waiting. */
int server_accept(const struct server *server);

/* Read standard input; exit at its end. */
void server_input(void);

#endif
