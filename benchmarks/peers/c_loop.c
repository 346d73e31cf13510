/* The floor: what one text frame to N WebSocket clients costs when a program does nothing else.
 *
 * It accepts, upgrades, and every INTERVAL_MS sends one frame to all with a plain send() loop. It has no queues: a
 * client that cannot take a whole frame is dropped (and said so at the end), for to keep it would cost what is not
 * measured here. The load client always sends the sample key of RFC 6455 section 1.3, so the answer needs no SHA-1.
 *
 * usage: [BENCH_BEATS=FD] c_loop INTERVAL_MS MESSAGE_BYTES [uring]
 *
 * With `uring` it sends by io_uring, many with one system call, in place of a send() for each.
 *
 * From the first byte on that comes through BENCH_BEATS, it sends a frame for each such byte instead.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "uring.h"

enum { MAX_FDS = 65536, BACKLOG = 4096, HEAD_BYTES = 4096, MAX_MESSAGE = 65000 };

static const char SAMPLE_KEY[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char REFUSAL[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static int ready[MAX_FDS]; /* descriptors of upgraded clients, dense: the send loop runs over this and nothing else */
static int place[MAX_FDS]; /* descriptor -> its index in `ready`, or -1 */
static int ready_count;
static unsigned long dropped;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void leave(int fd) {
    if (place[fd] >= 0) {
        int last = ready[--ready_count];
        ready[place[fd]] = last;
        place[last] = place[fd];
        place[fd] = -1;
    }
    close(fd);
}

/* What a client sends: first its upgrade request (loopback delivers it in one piece), later pongs, which are ignored. */
static void receive(int fd) {
    char head[HEAD_BYTES + 1];
    ssize_t n = recv(fd, head, HEAD_BYTES, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        leave(fd);
        return;
    }
    if (place[fd] >= 0) return;
    head[n] = 0;
    if (!strstr(head, "\r\n\r\n") || !strstr(head, SAMPLE_KEY)) {
        send(fd, REFUSAL, sizeof REFUSAL - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        leave(fd);
        return;
    }
    if (send(fd, ANSWER, sizeof ANSWER - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof ANSWER - 1) {
        leave(fd);
        return;
    }
    place[fd] = ready_count;
    ready[ready_count++] = fd;
}

static void accept_all(int listener, int poll) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        place[fd] = -1;
        struct epoll_event interest = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &interest) < 0) die("epoll_ctl");
    }
}

/* One text frame whose payload is a status message of exactly `size` bytes; `stamp` is where its time is written. */
static size_t make_frame(unsigned char *frame, size_t size, char **stamp) {
    static const char START[] = "{\"type\":\"status_update\",\"timestamp\":\"";
    static const char NO_TIME[] = "0000-00-00T00:00:00.000000Z";
    static const char MIDDLE[] = "\",\"data\":{\"padding\":\"";
    static const char END[] = "\"}}";
    size_t head = 2, fixed = sizeof START + sizeof NO_TIME + sizeof MIDDLE + sizeof END - 4;
    if (size < fixed) size = fixed;
    frame[0] = 0x81;
    if (size < 126) {
        frame[1] = (unsigned char)size;
    } else {
        frame[1] = 126;
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
        head = 4;
    }
    char *payload = (char *)frame + head;
    *stamp = payload + sizeof START - 1;
    char *padding = stpcpy(stpcpy(stpcpy(payload, START), NO_TIME), MIDDLE);
    memset(padding, 'x', size - fixed);
    memcpy(padding + (size - fixed), END, sizeof END - 1);
    return head + size;
}

static void write_stamp(char *stamp) {
    struct timespec now;
    struct tm utc;
    char text[28];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + 19, sizeof text - 19, ".%06uZ", (unsigned)(now.tv_nsec / 1000) % 1000000U);
    memcpy(stamp, text, 27);
}

static Uring ring;
static bool by_ring;

static void broadcast_by_ring(const unsigned char *frame, size_t length) {
    static int taken[MAX_FDS];
    int count = ready_count;
    if (uring_send(&ring, ready, count, frame, length, taken)) die("io_uring_enter");
    for (int i = count - 1; i >= 0; i--) { /* downwards, so that leave() may move the last one into a hole */
        if (taken[i] == (int)length) continue;
        dropped++;
        leave(ready[i]);
    }
}

static void broadcast(const unsigned char *frame, size_t length) {
    if (by_ring) {
        broadcast_by_ring(frame, length);
        return;
    }
    for (int i = ready_count - 1; i >= 0; i--) { /* downwards, so that leave() may move the last one into a hole */
        if (send(ready[i], frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length) {
            dropped++;
            leave(ready[i]);
        }
    }
}

int main(int argc, char **argv) {
    by_ring = argc == 4 && !strcmp(argv[3], "uring");
    bool fine = argc == 3 || by_ring;
    long interval_ms = fine ? atol(argv[1]) : 0, size = fine ? atol(argv[2]) : 0;
    if (interval_ms < 1 || size < 1 || size > MAX_MESSAGE) {
        fprintf(stderr, "usage: c_loop INTERVAL_MS MESSAGE_BYTES (at most %d) [uring]\n", MAX_MESSAGE);
        return 2;
    }
    if (by_ring && uring_open(&ring)) die("io_uring_setup");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    memset(place, -1, sizeof place);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, BACKLOG) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &address_length);

    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct timespec period = {interval_ms / 1000, interval_ms % 1000 * 1000000};
    struct itimerspec beat = {period, period};
    if (timer < 0 || timerfd_settime(timer, 0, &beat, NULL) < 0) die("timerfd");

    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on_listener = {.events = EPOLLIN, .data.fd = listener};
    struct epoll_event on_timer = {.events = EPOLLIN, .data.fd = timer};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &on_listener) < 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, timer, &on_timer) < 0)
        die("epoll");

    int beats_fd = getenv("BENCH_BEATS") ? atoi(getenv("BENCH_BEATS")) : -1;
    struct epoll_event on_beats = {.events = EPOLLIN, .data.fd = beats_fd};
    if (beats_fd >= 0 && (fcntl(beats_fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, beats_fd, &on_beats) < 0))
        die("beats");

    static unsigned char frame[MAX_MESSAGE + 8];
    char *stamp;
    size_t length = make_frame(frame, (size_t)size, &stamp);
    fprintf(stderr, "{\"event\":\"ready\",\"address\":\"127.0.0.1:%d\"}\n", ntohs(address.sin_port));

    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poll, events, 256, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(listener, poll);
            } else if (fd != timer && fd != beats_fd) {
                receive(fd);
            } else {
                char bytes[64];
                uint64_t expired;
                ssize_t due = fd == timer ? read(timer, &expired, sizeof expired) == sizeof expired
                                          : read(beats_fd, bytes, sizeof bytes);
                unsigned long before = dropped;
                if (fd == beats_fd && due == 0) close(beats_fd);
                if (due <= 0) continue;
                if (fd == beats_fd && timer >= 0) {
                    close(timer);
                    timer = -1;
                }
                for (; due > 0; due--) {
                    write_stamp(stamp);
                    broadcast(frame, length);
                }
                if (dropped != before) fprintf(stderr, "{\"event\":\"dropped\",\"total\":%lu}\n", dropped);
                break; /* the rest of this batch may name clients that broadcast() dropped; epoll tells again */
            }
        }
    }
}
