/* What benchmarks/broadcast.py calls in C: the same bytes to many sockets, by send() and by io_uring. */
#define _GNU_SOURCE
#include "uring.h"

static Uring ring;

int open_ring(void) { return uring_open(&ring); }

/* How many did not take all of it. */
int send_loop(const int *fds, int count, const void *bytes, size_t length) {
    int short_ones = 0;
    for (int i = 0; i < count; i++)
        if (send(fds[i], bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length) short_ones++;
    return short_ones;
}

int send_by_ring(const int *fds, int count, const void *bytes, size_t length, int *taken) {
    if (uring_send(&ring, fds, count, bytes, length, taken)) return -1;
    int short_ones = 0;
    for (int i = 0; i < count; i++)
        if (taken[i] != (int)length) short_ones++;
    return short_ones;
}
