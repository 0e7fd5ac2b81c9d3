/*
 * The floor: the least work with which one Linux thread can accept, greet and answer connections.
 *
 * Rules of this file: nothing that a measurement does not need. No allocation per connection, no
 * table of connections beyond one pointer per descriptor (touched only while a reply waits for
 * room), no option call per connection (TCP_NODELAY is set on the listening socket and inherited),
 * level-triggered epoll, one thread. What it costs more than this, a server pays for what it
 * offers.
 *
 * It sends the greeting, if it was given one, at accept; it sends back what arrives; it closes at
 * the client's end of file. A connection on which nothing happens is left alone. The measurements
 * of accepting, of echoing and of idle connections all use it as it is.
 *
 * Usage: epoll_server [--greeting TEXT] [--backlog N]
 * CR LF is appended to TEXT. The server listens on an ephemeral port of 127.0.0.1, prints the
 * port's number on a line of standard output, and ends when standard input ends.
 */

#define _GNU_SOURCE
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

/* One wake-up takes at most this many events and accepts: enough that the cost of the wake-up
 * vanishes, few enough that accepting cannot starve the connections that are already there. */
enum { EVENTS = 512, ACCEPTS = 256 };

/* As large as the read buffer of the Python loops it is compared with. */
enum { BUFFER = 256 * 1024 };

/* A reply that the socket had no room for. */
struct pending {
    size_t sent, length;
    char bytes[];
};

static char buffer[BUFFER];
static char greeting[512];
static size_t greeting_length;
static struct pending **waiting; /* by descriptor */
static int poller;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void interest(int fd, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, operation, fd, &event) != 0)
        die("epoll_ctl");
}

static void end(int fd)
{
    if (waiting[fd] != NULL) {
        free(waiting[fd]);
        waiting[fd] = NULL;
    }
    close(fd);
}

/* Send, or keep what finds no room and stop reading until it has gone. */
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
        die("malloc");
    kept->sent = 0;
    kept->length = rest;
    memcpy(kept->bytes, bytes + sent, rest);
    waiting[fd] = kept;
    interest(fd, EPOLL_CTL_MOD, EPOLLOUT);
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
    interest(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void receive(int fd)
{
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0)
        reply(fd, buffer, (size_t)got);
    else if (got == 0 || errno != EAGAIN)
        end(fd);
}

static void accept_some(int listener)
{
    for (int count = 0; count < ACCEPTS; count++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            /* ECONNABORTED and its like belong to one connection; without descriptors the
             * figures would mean nothing, so that ends the server. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                die("accept4");
            return;
        }
        interest(fd, EPOLL_CTL_ADD, EPOLLIN);
        if (greeting_length != 0)
            reply(fd, greeting, greeting_length);
    }
}

static int listen_on_loopback(int backlog)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("TCP_NODELAY");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, backlog) != 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

/* Raise the limit of descriptors and reserve one pointer for each; pages come when touched. */
static void prepare(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit");
    waiting = mmap(NULL, limit.rlim_max * sizeof *waiting, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (waiting == MAP_FAILED)
        die("mmap");
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        die("epoll_create1");
}

static void usage(void)
{
    fputs("usage: epoll_server [--greeting TEXT] [--backlog N]\n", stderr);
    exit(2);
}

int main(int count, char **words)
{
    int backlog = 1024;
    if (count % 2 == 0)
        usage();
    for (int i = 1; i < count; i += 2) {
        if (strcmp(words[i], "--greeting") == 0)
            greeting_length =
                (size_t)snprintf(greeting, sizeof greeting, "%s\r\n", words[i + 1]);
        else if (strcmp(words[i], "--backlog") == 0)
            backlog = atoi(words[i + 1]);
        else
            usage();
    }
    if (backlog < 1 || greeting_length >= sizeof greeting)
        usage();

    static struct epoll_event events[EVENTS];
    prepare();
    int listener = listen_on_loopback(backlog);
    interest(listener, EPOLL_CTL_ADD, EPOLLIN);
    interest(STDIN_FILENO, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(listener);
            else if (fd == STDIN_FILENO) {
                if (read(STDIN_FILENO, buffer, sizeof buffer) <= 0)
                    return 0;
            } else if (waiting[fd] != NULL)
                resume(fd);
            else
                receive(fd);
        }
    }
}
