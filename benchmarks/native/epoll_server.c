/*
 * The baseline: the least work with which one Linux thread can serve connections.
 *
 * Rules of this file: nothing that a measurement does not need. No allocation per connection, no
 * table of connections beyond one pointer per descriptor (used only while a reply waits for buffer
 * space), no option call per connection, level-triggered epoll, one thread. Whatever a server costs
 * on top of this is the price of its features.
 *
 * It sends the greeting, if there is one, at accept, echoes what arrives, and closes at the
 * client's end of file. Idle connections have no timeout. The measurements of accepting, of echoing and of
 * idle connections all use it unchanged.
 *
 * Usage: epoll_server [--greeting TEXT] [--backlog N]
 * CR LF is appended to TEXT. The server listens on an ephemeral port of 127.0.0.1, prints the
 * port's number on a line of standard output, and ends when standard input ends.
 */

#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* A reply that did not fit into the socket's buffer. */
struct pending {
    size_t sent, length;
    char bytes[];
};

static struct server server;
static char buffer[SERVER_BUFFER];
static struct pending **waiting; /* by descriptor */

static void end(int fd)
{
    if (waiting[fd] != NULL) {
        free(waiting[fd]);
        waiting[fd] = NULL;
    }
    close(fd);
}

/* Send; what does not fit is kept, and reading stops until it is sent. */
static void reply(int fd, const char *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            end(fd);
            return;
        }
        sent = 0;
    }
    if ((size_t)sent == length)
        return;
    size_t rest = length - (size_t)sent;
    struct pending *kept = malloc(sizeof *kept + rest);
    if (kept == NULL)
        server_die("malloc");
    kept->sent = 0;
    kept->length = rest;
    memcpy(kept->bytes, bytes + sent, rest);
    waiting[fd] = kept;
    server_interest(&server, fd, EPOLL_CTL_MOD, EPOLLOUT);
}

static void resume(int fd)
{
    struct pending *kept = waiting[fd];
    ssize_t sent = send(fd, kept->bytes + kept->sent, kept->length - kept->sent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            end(fd);
        return;
    }
    kept->sent += (size_t)sent;
    if (kept->sent < kept->length)
        return;
    free(kept);
    waiting[fd] = NULL;
    server_interest(&server, fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void receive(int fd)
{
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0)
        reply(fd, buffer, (size_t)got);
    else if (got == 0 || errno != EAGAIN)
        end(fd);
}

static void accept_some(void)
{
    for (int count = 0; count < SERVER_ACCEPTS; count++) {
        int fd = server_accept(&server);
        if (fd < 0)
            return;
        server_interest(&server, fd, EPOLL_CTL_ADD, EPOLLIN);
        if (server.greeting_length != 0)
            reply(fd, server.greeting, server.greeting_length);
    }
}

int main(int count, char **words)
{
    static struct epoll_event events[SERVER_EVENTS];
    server_arguments(&server, count, words, 0);
    waiting = server_table(sizeof *waiting);
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
            else if (waiting[fd] != NULL)
                resume(fd);
            else
                receive(fd);
        }
    }
}
