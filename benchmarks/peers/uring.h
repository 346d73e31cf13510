/* io_uring for one thing: the same bytes to many sockets, many of them by one system call, none of them waited for. */
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { URING_ENTRIES = 512 };

typedef struct {
    int fd;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *completions;
    unsigned *sq_tail, *cq_head, *cq_tail, tail, size, cq_size;
} Uring;

/* 0, or -1 with errno: this kernel or what confines this process does not allow it. */
static int uring_open(Uring *ring) {
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    ring->fd = (int)syscall(SYS_io_uring_setup, URING_ENTRIES, &parameters);
    if (ring->fd < 0) return -1;
    ring->size = parameters.sq_entries;
    ring->cq_size = parameters.cq_entries;
    size_t of_sq = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    size_t of_cq = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    char *rings = mmap(NULL, of_sq > of_cq ? of_sq : of_cq, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    void *entries = mmap(NULL, parameters.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED,
                         ring->fd, IORING_OFF_SQES);
    if (rings == MAP_FAILED || entries == MAP_FAILED) return -1;
    ring->entries = entries;
    ring->completions = (void *)(rings + parameters.cq_off.cqes);
    ring->sq_tail = (unsigned *)(rings + parameters.sq_off.tail);
    ring->cq_head = (unsigned *)(rings + parameters.cq_off.head);
    ring->cq_tail = (unsigned *)(rings + parameters.cq_off.tail);
    ring->tail = 0;
    unsigned *places = (unsigned *)(rings + parameters.sq_off.array);
    for (unsigned i = 0; i < ring->size; i++) places[i] = i;
    return 0;
}

/* Sends to all of `fds`, and writes at `taken` what each took, or -errno. -1 with errno if the kernel takes no entries. */
static int uring_send(Uring *ring, const int *fds, int count, const void *bytes, size_t length, int *taken) {
    for (int start = 0; start < count;) {
        unsigned block = (unsigned)(count - start) < ring->size ? (unsigned)(count - start) : ring->size;
        for (unsigned i = 0; i < block; i++) {
            struct io_uring_sqe *entry = &ring->entries[(ring->tail + i) % ring->size];
            memset(entry, 0, sizeof *entry);
            entry->opcode = IORING_OP_SEND;
            entry->fd = fds[start + (int)i];
            entry->addr = (unsigned long)bytes;
            entry->len = (unsigned)length;
            entry->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
            entry->user_data = (unsigned long)start + i;
        }
        ring->tail += block;
        __atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
        if (syscall(SYS_io_uring_enter, ring->fd, block, block, IORING_ENTER_GETEVENTS, NULL, 0) != (long)block) return -1;
        unsigned head = *ring->cq_head, end = __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
        for (; head != end; head++) {
            struct io_uring_cqe *done = &ring->completions[head % ring->cq_size];
            taken[done->user_data] = done->res;
        }
        __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
        start += (int)block;
    }
    return 0;
}
