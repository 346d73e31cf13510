/* How a connection's bytes travel: as they are, or with -DLOAD_TLS (and -lssl -lcrypto) in TLS 1.3.
 *
 * `put` and `take` are as send() and recv() on a non-blocking socket: what has to wait is -1 with EAGAIN.
 */
#ifdef LOAD_TLS
#include <openssl/ssl.h>

/* epoll tells of the socket alone: what OpenSSL has read ahead must be taken at once. */
enum { TAKE_ALL = true };

static ssize_t tls_result(SSL *tls, int done) {
    if (done > 0) return done;
    int why = SSL_get_error(tls, done);
    if (why == SSL_ERROR_ZERO_RETURN) return 0;
    if (why != SSL_ERROR_SYSCALL) errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}

static void transport_begin(Connection *c) {
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method()); /* whose certificate it is does not matter on the loopback */
        if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)) fail("OpenSSL without TLS 1.3");
        SSL_CTX_set_read_ahead(context, 1);
    }
    if (!(c->tls = SSL_new(context)) || !SSL_set_fd(c->tls, c->fd)) fail("memory");
}

/* Takes the handshake on; 1 when it is done. */
static ssize_t transport_open(Connection *c) { return tls_result(c->tls, SSL_connect(c->tls)); }

static ssize_t put(Connection *c, const void *data, size_t length) {
    return tls_result(c->tls, SSL_write(c->tls, data, (int)length));
}

static ssize_t take(Connection *c, void *data, size_t room) { return tls_result(c->tls, SSL_read(c->tls, data, (int)room)); }
#else
enum { TAKE_ALL = false };

static void transport_begin(Connection *c) { (void)c; }

static ssize_t transport_open(Connection *c) {
    (void)c;
    return 1;
}

static ssize_t put(Connection *c, const void *data, size_t length) {
    return send(c->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t take(Connection *c, void *data, size_t room) { return recv(c->fd, data, room, 0); }
#endif
