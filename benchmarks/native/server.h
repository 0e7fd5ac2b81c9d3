/*
 * What the two floor servers share: descriptors, epoll, the listening socket, the greeting.
 *
 * Rules of this file: declarations only, defined in server_net.c. Nothing of it runs per
 * connection but `server_interest`.
 */

#ifndef FASTLISTEN_SERVER_H
#define FASTLISTEN_SERVER_H

#include <stddef.h>

/* One wake-up takes at most this many events and accepts: enough that the cost of the wake-up
 * vanishes, few enough that accepting cannot starve the connections that are already there. */
enum { SERVER_EVENTS = 512, SERVER_ACCEPTS = 256 };

/* As large as the read buffer of the Python loops it is compared with. */
enum { SERVER_BUFFER = 256 * 1024 };

/* What the command line asked for. */
struct server {
    char greeting[512];
    size_t greeting_length;
    int backlog;
    const char *certificate, *key; /* files, of the server that speaks TLS */
    int poller, listener;
};

/* Say what failed, by errno, and end. */
void server_die(const char *what);

/* Read the command line; the two files are allowed, and then required, only with `tls`. */
void server_arguments(struct server *server, int count, char **words, int tls);

/* Raise the limit of descriptors; return as many zeroed elements of a size. Pages come when
 * touched. */
void *server_table(size_t size);

/* Listen on an ephemeral port of 127.0.0.1, print it, watch it and standard input. */
void server_listen(struct server *server);

/* epoll_ctl with a descriptor for its data. */
void server_interest(const struct server *server, int fd, int operation, unsigned events);

/* The next connection, or -1 when nobody waits. */
int server_accept(const struct server *server);

/* Read standard input; end the program when it has ended. */
void server_input(void);

#endif
