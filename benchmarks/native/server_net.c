/*
 * Starts a baseline server: its command line, its limits, its listening socket.
 *
 * Rules of this file: no option call per connection (TCP_NODELAY is set on the listening socket and
 * inherited). Any failure ends the program, because its figures would mean nothing.
 */

#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

void server_die(const char *what)
{
    perror(what);
    exit(1);
}

static void usage(int tls)
{
    fprintf(stderr, "usage: %s [--greeting TEXT] [--backlog N]\n",
            tls ? "epoll_tls_server --certificate FILE --key FILE" : "epoll_server");
    exit(2);
}

void server_arguments(struct server *server, int count, char **words, int tls)
{
    server->backlog = 1024;
    if (count % 2 == 0)
        usage(tls);
    for (int i = 1; i < count; i += 2) {
        if (strcmp(words[i], "--greeting") == 0)
            server->greeting_length = (size_t)snprintf(
                server->greeting, sizeof server->greeting, "%s\r\n", words[i + 1]);
        else if (strcmp(words[i], "--backlog") == 0)
            server->backlog = atoi(words[i + 1]);
        else if (tls && strcmp(words[i], "--certificate") == 0)
            server->certificate = words[i + 1];
        else if (tls && strcmp(words[i], "--key") == 0)
            server->key = words[i + 1];
        else
            usage(tls);
    }
    if (server->backlog < 1 || server->greeting_length >= sizeof server->greeting)
        usage(tls);
    if (tls && (server->certificate == NULL || server->key == NULL))
        usage(tls);
}

void *server_table(size_t size)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        server_die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        server_die("setrlimit");
    void *table = mmap(NULL, limit.rlim_max * size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        server_die("mmap");
    return table;
}

void server_listen(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        server_die("socket");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        server_die("TCP_NODELAY");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, server->backlog) != 0)
        server_die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        server_die("getsockname");
    server->listener = fd;
    server->poller = epoll_create1(EPOLL_CLOEXEC);
    if (server->poller < 0)
        server_die("epoll_create1");
    server_interest(server, fd, EPOLL_CTL_ADD, EPOLLIN);
    server_interest(server, STDIN_FILENO, EPOLL_CTL_ADD, EPOLLIN);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
}

void server_interest(const struct server *server, int fd, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(server->poller, operation, fd, &event) != 0)
        server_die("epoll_ctl");
}

int server_accept(const struct server *server)
{
    int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    /* ECONNABORTED and similar errors concern one connection only; without free descriptors the
     * figures would mean nothing. */
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
        server_die("accept4");
    return fd;
}

void server_input(void)
{
    char bytes[256];
    if (read(STDIN_FILENO, bytes, sizeof bytes) <= 0)
        exit(0);
}
