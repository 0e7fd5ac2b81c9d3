# Linux as the native modules use it: system calls, structures, atomics, errors.
#
# Rules of this file: only what is used. Helpers are in C where Cython cannot express them (atomics,
# anonymous unions, structures that differ by address family); their names begin with fl_.

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport strerror

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <linux/sockios.h>
    #include <net/if.h>
    #include <netinet/in.h>
    #include <poll.h>
    #include <sched.h>
    #include <stdint.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <sys/timerfd.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>

    /* Sequentially consistent: limits are exact only if the last to announce sees all others. */
    #define fl_load32(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define fl_store32(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define fl_add32(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define fl_sub32(p, v) __atomic_sub_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define fl_swap32(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
    #define fl_load64(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define fl_store64(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define fl_or64(p, v) __atomic_or_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define fl_and64(p, v) __atomic_and_fetch((p), (v), __ATOMIC_SEQ_CST)
    /* Clear one bit; return whether it was set. */
    #define fl_take_bit64(p, bit) \
        ((__atomic_fetch_and((p), ~(bit), __ATOMIC_SEQ_CST) & (bit)) != 0)

    static inline int fl_cas32(uint32_t *p, uint32_t expected, uint32_t wanted) {
        return __atomic_compare_exchange_n(p, &expected, wanted, 0,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }

    static inline void fl_pause(unsigned turns) {
        while (turns--) {
    #if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
    #elif defined(__aarch64__)
            __asm__ volatile("yield");
    #endif
        }
    }

    /* Extract an IP address and port (in host order); return the address's length: 4, 16 or 0. */
    static inline int fl_address(const struct sockaddr_storage *s, uint8_t *address, uint16_t *port,
                          uint32_t *scope) {
        *port = 0;
        *scope = 0;
        if (s->ss_family == AF_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)s;
            __builtin_memcpy(address, &in->sin_addr, 4);
            *port = ntohs(in->sin_port);
            return 4;
        }
        if (s->ss_family == AF_INET6) {
            const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)s;
            __builtin_memcpy(address, &in->sin6_addr, 16);
            *port = ntohs(in->sin6_port);
            *scope = in->sin6_scope_id;
            return 16;
        }
        return 0;
    }

    static inline uint64_t fl_microseconds(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
    }

    static inline uint64_t fl_walltime(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
    }

    static inline int fl_set_timer(int fd, uint64_t milliseconds) {
        struct itimerspec when = {{0, 0}, {0, 0}};
        when.it_value.tv_sec = (time_t)(milliseconds / 1000u);
        when.it_value.tv_nsec = (long)(milliseconds % 1000u) * 1000000L;
        return timerfd_settime(fd, 0, &when, 0);
    }

    /* Return which events are ready now, or an error or hang-up. The bits are those of epoll. */
    static inline uint32_t fl_poll(int fd, uint32_t events) {
        struct pollfd one = {fd, (short)events, 0};
        return poll(&one, 1, 0) > 0 ? (uint32_t)(unsigned short)one.revents : 0;
    }
    """
    uint32_t fl_load32(uint32_t *)
    void fl_store32(uint32_t *, uint32_t)
    uint32_t fl_add32(uint32_t *, uint32_t)
    uint32_t fl_sub32(uint32_t *, uint32_t)
    uint32_t fl_swap32(uint32_t *, uint32_t)
    uint64_t fl_load64(uint64_t *)
    void fl_store64(uint64_t *, uint64_t)
    uint64_t fl_or64(uint64_t *, uint64_t)
    uint64_t fl_and64(uint64_t *, uint64_t)
    int fl_take_bit64(uint64_t *, uint64_t)
    int fl_cas32(uint32_t *, uint32_t, uint32_t)
    void fl_pause(unsigned int)
    int fl_address(const sockaddr_storage *, uint8_t *, uint16_t *, uint32_t *)
    uint64_t fl_microseconds()
    uint64_t fl_walltime()
    int fl_set_timer(int, uint64_t)
    uint32_t fl_poll(int, uint32_t)

    ctypedef unsigned int socklen_t
    ctypedef struct sockaddr "struct sockaddr":
        pass
    ctypedef struct sockaddr_storage "struct sockaddr_storage":
        unsigned short ss_family
    ctypedef struct linger_t "struct linger":
        int l_onoff
        int l_linger
    ctypedef struct iovec_t "struct iovec":
        void *iov_base
        size_t iov_len
    ctypedef struct msghdr_t "struct msghdr":
        iovec_t *msg_iov
        size_t msg_iovlen
    ctypedef union epoll_data_t:
        uint64_t u64
    ctypedef struct epoll_event "struct epoll_event":
        uint32_t events
        epoll_data_t data

    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLL_CLOEXEC
    uint32_t EPOLLET
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    int EFD_NONBLOCK, EFD_CLOEXEC, TFD_NONBLOCK, TFD_CLOEXEC, CLOCK_MONOTONIC
    int eventfd(unsigned int, int)
    int timerfd_create(int, int)
    int SOCK_NONBLOCK, SOCK_CLOEXEC, SHUT_WR, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_PEEK
    int SOL_SOCKET, SO_ERROR, SO_LINGER, AF_INET, AF_INET6, INET6_ADDRSTRLEN
    int accept4(int, sockaddr *, socklen_t *, int)
    ssize_t send(int, const void *, size_t, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t sendmsg(int, const msghdr_t *, int)
    int shutdown(int, int)
    int setsockopt(int, int, int, const void *, socklen_t)
    int getsockname(int, sockaddr *, socklen_t *)
    int getpeername(int, sockaddr *, socklen_t *)
    int getsockopt(int, int, int, void *, socklen_t *)
    const char *inet_ntop(int, const void *, char *, socklen_t)
    int SIOCOUTQ
    int ioctl(int, unsigned long, ...)
    int close(int)
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)
    int open(const char *, int, ...)
    int O_RDONLY, O_CLOEXEC
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    unsigned int MFD_CLOEXEC, MFD_ALLOW_SEALING
    int F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK
    int fcntl(int, int, ...)
    void *MAP_FAILED
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int memfd_create(const char *, unsigned int)
    int ftruncate(int, long)


cdef inline object errno_error(int number):
    """Return OSError (or its subclass) for a number of errno, in the kernel's words."""
    return OSError(number, strerror(number).decode("ascii", "replace"))


cdef inline int raise_errno(str what) except -1:
    """Raise OSError for errno, naming what was tried."""
    cdef int number = errno
    raise OSError(number, f"{what}: {strerror(number).decode('ascii', 'replace')}")
