/* A stand-in for the service that is never the slower side: GET, PUT and DELETE of
 * /cache/{name}?key_base64=..., kept alive, pipelined if asked, each reply after a fixed latency.
 *
 *     standin LATENCY_MICROSECONDS [CERTIFICATE_CHAIN PRIVATE_KEY]
 *
 * It listens on a free port of 127.0.0.1, prints it, and ends when its standard input closes.
 * It knows nothing of tokens, expiry, limits or chunked bodies: those are the business of
 * django_momento_http.server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

enum { BUCKETS = 1 << 16, MAX_KEY = 8192, DIRECT = 1 << 16, MAX_BODY = 64 << 20 };

/* ---- buffers ---------------------------------------------------------------------------- */

typedef struct {
    char *data;
    size_t start, end, size;
} Buffer;

static void reserve(Buffer *b, size_t more) {
    if (b->start == b->end) b->start = b->end = 0;
    if (b->end + more <= b->size) return;
    if (b->start) memmove(b->data, b->data + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
    if (b->end + more <= b->size) return;
    b->size = (b->end + more) * 2;
    b->data = realloc(b->data, b->size);
    if (!b->data) abort();
}

static void append(Buffer *b, const char *data, size_t length) {
    reserve(b, length);
    memcpy(b->data + b->end, data, length);
    b->end += length;
}

/* ---- the store: a key's whole reply, ready to be sent -------------------------------------- */

typedef struct Item {
    struct Item *next;
    char *key, *reply;
    size_t key_length, reply_length;
} Item;

static Item *buckets[BUCKETS];

static Item **find(const char *key, size_t length) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)key[i]) * 16777619u;
    Item **at = &buckets[hash % BUCKETS];
    while (*at && ((*at)->key_length != length || memcmp((*at)->key, key, length)))
        at = &(*at)->next;
    return at;
}

static void drop(Item **at) {
    Item *item = *at;
    if (!item) return;
    *at = item->next;
    free(item->key);
    free(item->reply);
    free(item);
}

static void store(const char *key, size_t length, const char *body, size_t body_length) {
    Item **at = find(key, length);
    drop(at);
    Item *item = calloc(1, sizeof *item);
    char *reply = malloc(body_length + 128);
    if (!item || !reply) abort();
    int head = snprintf(reply, 128,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                        "Content-Length: %zu\r\n\r\n", body_length);
    memcpy(reply + head, body, body_length);
    item->key = memcpy(malloc(length), key, length);
    item->key_length = length;
    item->reply = reply;
    item->reply_length = head + body_length;
    item->next = *at;
    *at = item;
}

/* ---- connections --------------------------------------------------------------------------- */

typedef struct Connection {
    int fd;
    int watches_writing;
    int replies_due; /* a dead connection is kept until its last late reply has come up */
    size_t wanted;   /* bytes of the request that is still arriving */
    SSL *tls;
    Buffer in, out;
    struct Connection *next_free;
} Connection;

static int poller;
static Connection *free_connections;

static ssize_t receive(Connection *c, char *data, size_t size) {
#ifdef WITH_TLS
    if (c->tls) {
        int got = SSL_read(c->tls, data, (int)size);
        if (got > 0) return got;
        errno = SSL_get_error(c->tls, got) == SSL_ERROR_WANT_READ ? EAGAIN : ECONNRESET;
        return -1;
    }
#endif
    return recv(c->fd, data, size, 0);
}

static ssize_t transmit(Connection *c, const char *data, size_t size) {
#ifdef WITH_TLS
    if (c->tls) {
        int sent = SSL_write(c->tls, data, size > 1 << 30 ? 1 << 30 : (int)size);
        if (sent > 0) return sent;
        errno = SSL_get_error(c->tls, sent) == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
        return -1;
    }
#endif
    return send(c->fd, data, size, MSG_NOSIGNAL);
}

static void release(Connection *c) {
    if (c->replies_due) return;
    c->next_free = free_connections;
    free_connections = c;
}

static void hang_up(Connection *c) {
    if (c->fd < 0) return;
#ifdef WITH_TLS
    SSL_free(c->tls);
#endif
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    memset(&c->in, 0, sizeof c->in);
    memset(&c->out, 0, sizeof c->out);
    c->fd = -1;
    release(c);
}

static void watch(Connection *c, int writing) {
    if (c->watches_writing == writing) return;
    c->watches_writing = writing;
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush(Connection *c) {
    while (c->fd >= 0 && c->out.start < c->out.end) {
        ssize_t sent = transmit(c, c->out.data + c->out.start, c->out.end - c->out.start);
        if (sent > 0) {
            c->out.start += sent;
        } else if (errno == EAGAIN) {
            watch(c, 1);
            return;
        } else {
            hang_up(c);
            return;
        }
    }
    if (c->fd >= 0) watch(c, 0);
}

/* Send a large reply from where it lies: a copy of it would be charged to every client. */
static void reply_now(Connection *c, const char *reply, size_t length) {
    if (length >= DIRECT && !c->tls) {
        flush(c);
        if (c->fd < 0) return;
        if (c->out.start == c->out.end) {
            ssize_t sent = transmit(c, reply, length);
            if (sent > 0) {
                reply += sent;
                length -= sent;
            }
        }
    }
    append(&c->out, reply, length);
}

/* ---- latency: every reply waits as long, so that a queue keeps them in order ---------------- */

typedef struct {
    uint64_t due;
    Connection *connection;
    char *reply;
    size_t length;
} Late;

static uint64_t latency;
static int timer;
static Late *late;
static size_t late_first, late_count, late_size;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void set_timer(void) {
    uint64_t due = late_count ? late[late_first].due : 0;
    struct itimerspec when = {.it_value = {due / 1000000000u, due % 1000000000u}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void grow_late(void) {
    size_t size = late_size ? late_size * 2 : 1024;
    Late *bigger = malloc(size * sizeof *bigger);
    if (!bigger) abort();
    for (size_t i = 0; i < late_count; i++) bigger[i] = late[(late_first + i) % late_size];
    free(late);
    late = bigger;
    late_first = 0;
    late_size = size;
}

static void reply_later(Connection *c, const char *reply, size_t length) {
    if (late_count == late_size) grow_late();
    char *copy = memcpy(malloc(length), reply, length);
    late[(late_first + late_count) % late_size] = (Late){now() + latency, c, copy, length};
    c->replies_due++;
    if (late_count++ == 0) set_timer();
}

static void send_late(void) {
    uint64_t ticks, time = now();
    if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) return;
    while (late_count && late[late_first].due <= time) {
        Late l = late[late_first];
        late_first = (late_first + 1) % late_size;
        late_count--;
        l.connection->replies_due--;
        if (l.connection->fd >= 0) {
            append(&l.connection->out, l.reply, l.length);
            flush(l.connection);
        } else {
            release(l.connection);
        }
        free(l.reply);
    }
    set_timer();
}

static void reply(Connection *c, const char *data, size_t length) {
    if (latency)
        reply_later(c, data, length);
    else
        reply_now(c, data, length);
}

/* ---- requests ------------------------------------------------------------------------------- */

#define NO_CONTENT "HTTP/1.1 204 No Content\r\n\r\n"
#define NOT_FOUND \
    "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nKey Not Found"
#define BAD_REQUEST "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

/* The key is the cache's name, a '?' and the value of key_base64; 0 where there is none. */
static size_t read_key(const char *head, const char *head_end, char *key) {
    const char *line_end = memchr(head, '\r', head_end - head);
    const char *path = memchr(head, '/', line_end - head);
    if (!path) return 0;
    const char *query = memchr(path, '?', line_end - path);
    if (!query) return 0;
    const char *value = memmem(query, line_end - query, "key_base64=", 11);
    if (!value) return 0;
    value += 11;
    size_t name_length = query + 1 - path, value_length = strcspn(value, "& \r");
    if (name_length + value_length > MAX_KEY) return 0;
    memcpy(key, path, name_length);
    memcpy(key + name_length, value, value_length);
    return name_length + value_length;
}

static size_t content_length(const char *head, const char *head_end) {
    for (const char *line = head; (line = memchr(line, '\n', head_end - line)) != NULL;) {
        line++;
        if ((*line | 32) == 'c' && !strncasecmp(line, "content-length:", 15))
            return strtoul(line + 15, NULL, 10);
    }
    return 0;
}

static void answer(Connection *c, const char *head, const char *head_end, size_t body_length) {
    char key[MAX_KEY];
    size_t key_length = read_key(head, head_end, key);
    if (!key_length) {
        reply(c, BAD_REQUEST, sizeof BAD_REQUEST - 1);
    } else if (*head == 'G') {
        Item *item = *find(key, key_length);
        if (item)
            reply(c, item->reply, item->reply_length);
        else
            reply(c, NOT_FOUND, sizeof NOT_FOUND - 1);
    } else {
        if (*head == 'P')
            store(key, key_length, head_end, body_length);
        else
            drop(find(key, key_length));
        reply(c, NO_CONTENT, sizeof NO_CONTENT - 1);
    }
}

/* Answer the first request of the buffer if all of it is here. */
static int answer_one(Connection *c) {
    char *head = c->in.data + c->in.start;
    size_t here = c->in.end - c->in.start;
    if (!here || here < c->wanted) return 0;
    char *blank = memmem(head, here, "\r\n\r\n", 4);
    if (!blank) return 0;
    char *head_end = blank + 4;
    size_t body_length = *head == 'P' ? content_length(head, head_end) : 0;
    if (body_length > MAX_BODY) {
        hang_up(c);
        return 0;
    }
    c->wanted = (head_end - head) + body_length;
    if (here < c->wanted) return 0;
    size_t used = c->wanted;
    c->wanted = 0;
    answer(c, head, head_end, body_length);
    if (c->fd < 0) return 0;
    c->in.start += used;
    return 1;
}

static void serve(Connection *c) {
    for (;;) {
        size_t here = c->in.end - c->in.start;
        reserve(&c->in, c->wanted > here ? c->wanted - here : 16384);
        ssize_t got = receive(c, c->in.data + c->in.end, c->in.size - c->in.end);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) hang_up(c);
            return;
        }
        c->in.end += got;
        while (answer_one(c)) {}
        if (c->fd >= 0) flush(c);
        if (c->fd < 0 || (!c->tls && c->in.end < c->in.size && !c->wanted)) return;
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

#ifdef WITH_TLS
static SSL_CTX *tls_context;

static void load_certificate(const char *chain, const char *key) {
    tls_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(tls_context, chain) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) != 1)
        exit(3);
}
#endif

static void welcome(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int yes = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Connection *c = free_connections;
        if (c) free_connections = c->next_free;
        else c = malloc(sizeof *c);
        if (!c) abort();
        *c = (Connection){.fd = fd};
#ifdef WITH_TLS
        if (tls_context) {
            c->tls = SSL_new(tls_context);
            SSL_set_fd(c->tls, fd);
            SSL_set_accept_state(c->tls);
        }
#endif
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on_free_port(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1024)) exit(2);
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void watch_fd(int fd, void *mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = mark};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

int main(int count, char **arguments) {
    static char is_listener, is_timer, is_input;
    latency = count > 1 ? strtoull(arguments[1], NULL, 10) * 1000 : 0;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    if (count > 3) {
#ifdef WITH_TLS
        load_certificate(arguments[2], arguments[3]);
#else
        return 3;
#endif
    }
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int listener = listen_on_free_port();
    watch_fd(listener, &is_listener);
    watch_fd(timer, &is_timer);
    watch_fd(0, &is_input);
    struct epoll_event events[256];
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            void *mark = events[i].data.ptr;
            if (mark == &is_input) return 0;
            else if (mark == &is_listener) welcome(listener);
            else if (mark == &is_timer) send_late();
            else {
                Connection *c = mark;
                if (c->fd >= 0 && events[i].events & EPOLLOUT) flush(c);
                if (c->fd >= 0 && events[i].events & ~EPOLLOUT) serve(c);
            }
        }
    }
}
