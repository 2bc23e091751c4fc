#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blocks.h"
#include "deferred.h"
#include "dial.h"
#include "events.h"
#include "session.h"
#include "spawn.h"
#include "turns.h"
#include "wire.h"

#define FILES (MAX_CONNECTIONS + 1024u) /* descriptors of connections, and all others */
#define ADDRESS_BYTES 64
#define PARTS_AT_ONCE 64
#define DATA_HEAD_BYTES (FRAME_HEADER_BYTES + 8)
#define LEAST_ROOM_BYTES 1024u /* no frame of a few bytes because the send buffer is nearly full */
#define ACK_BYTES 2048u        /* fewer kept bytes are acknowledged along with other frames; half of what a sender always may */
#define PLACES_A_WORD 64u

struct connection {
    uint32_t id; /* 0: the place is free */
    int fd;      /* -1: closed */
    int error;   /* errno of what broke it, or that it could not be made */
    uint16_t port;
    bool tries_both;                  /* 127.0.0.1 was tried, ::1 comes next */
    bool connecting, reply_due, over; /* over: its EXIT was composed */
    bool readable, writable, hung_up; /* hung_up: an end or an error is behind what can be read */
    bool eof_known, in_closed;        /* host to guest */
    bool out_ended, eof_sent, broken; /* guest to host */
    struct block_queue waiting;       /* host to guest, not taken by the socket */
    uint64_t received, in_acked;      /* host to guest; what is not waiting is kept */
    uint64_t sent, out_acked;         /* guest to host: the agent keeps none of these bytes */
};

static struct connection places[MAX_CONNECTIONS]; /* touched from the first place on, as far as the host goes */
static uint64_t used[MAX_CONNECTIONS / PLACES_A_WORD];
static unsigned count;
static uint64_t shared_out; /* sum over all connections of unacknowledged bytes above CONNECTION_FREE_BYTES */

int connections_init(void)
{
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < FILES) {
        spawn_keep_file_limit(&files);
        files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
        setrlimit(RLIMIT_NOFILE, &files); /* without it there are fewer connections: EMFILE */
    }
    return blocks_init();
}

unsigned connections_count(void) { return count; }

static unsigned place_of(const struct connection *c) { return (unsigned)(c - places); }

static bool in_use(unsigned place) { return used[place / PLACES_A_WORD] >> place % PLACES_A_WORD & 1; }

static struct connection *find(uint32_t id)
{
    struct connection *c = &places[id % MAX_CONNECTIONS];
    return in_use(id % MAX_CONNECTIONS) && c->id == id ? c : NULL;
}

/* Has the connection looked at when frames are composed. */
static void schedule(const struct connection *c) { turns_add(place_of(c)); }

/* Counts what is unacknowledged now instead of before. */
static void count_out(const struct connection *c, uint64_t before)
{
    uint64_t now = c->sent - c->out_acked;
    shared_out += now > CONNECTION_FREE_BYTES ? now - CONNECTION_FREE_BYTES : 0;
    shared_out -= before > CONNECTION_FREE_BYTES ? before - CONNECTION_FREE_BYTES : 0;
}

/*
 * Bytes that may be sent now. Each connection gets an eighth of what is left of MAX_BUFFERED_BYTES, so that some stuck
 * ones leave enough to the others, and none is ever without a right to send.
 */
static size_t out_room(const struct connection *c)
{
    uint64_t unacknowledged = c->sent - c->out_acked;
    uint64_t limit = CONNECTION_FREE_BYTES + (MAX_BUFFERED_BYTES - shared_out) / 8;
    if (limit > STREAM_WINDOW_BYTES)
        limit = STREAM_WINDOW_BYTES;
    return unacknowledged < limit ? (size_t)(limit - unacknowledged) : 0;
}

static void receive_ack(struct connection *c, uint64_t offset)
{
    if (offset < c->out_acked || offset > c->sent)
        return;
    uint64_t before = c->sent - c->out_acked;
    c->out_acked = offset;
    count_out(c, before);
    if (c->readable)
        schedule(c);
}

static void close_socket(struct connection *c, bool reset)
{
    static const struct linger at_once = {1, 0};
    if (c->fd >= 0 && reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->readable = false;
}

static void drop_input(struct connection *c) { blocks_consume(&c->waiting, c->waiting.length); }

static void forget(struct connection *c)
{
    unsigned place = place_of(c);
    close_socket(c, !c->in_closed || !c->out_ended);
    drop_input(c);
    receive_ack(c, c->sent);
    c->id = 0;
    used[place / PLACES_A_WORD] &= ~(1ull << place % PLACES_A_WORD);
    count--;
}

/* It is over at once: the EXIT says why. */
static void break_off(struct connection *c, int error)
{
    c->error = error == EPIPE ? ECONNRESET : error;
    c->broken = true;
    c->reply_due = c->reply_due || c->connecting;
    c->connecting = false;
    close_socket(c, true);
    drop_input(c);
    schedule(c);
}

/* Input has no way any more; what can still be read is passed on before the EXIT. */
static void input_failed(struct connection *c, int error)
{
    c->error = error == EPIPE ? ECONNRESET : error;
    c->in_closed = true;
    c->readable = !c->out_ended;
    c->hung_up = true;
    drop_input(c);
    schedule(c);
}

static void flush_input(struct connection *c)
{
    struct iovec parts[PARTS_AT_ONCE];
    while (c->waiting.length && c->writable) {
        struct msghdr message = {.msg_iov = parts};
        message.msg_iovlen = blocks_parts(&c->waiting, parts, PARTS_AT_ONCE);
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n >= 0)
            blocks_consume(&c->waiting, (size_t)n);
        else if (errno == EAGAIN)
            c->writable = false;
        else if (errno != EINTR)
            return input_failed(c, errno);
        schedule(c); /* something may have to be acknowledged */
    }
    if (c->eof_known && !c->waiting.length && !c->in_closed) {
        shutdown(c->fd, SHUT_WR);
        c->in_closed = true;
        schedule(c);
    }
}

static void receive_data(struct connection *c, uint64_t offset, const uint8_t *bytes, size_t n)
{
    if (offset != c->received || c->eof_known || c->received + n - c->in_acked > STREAM_WINDOW_BYTES)
        return break_off(c, EPROTO);
    c->received += n;
    if (c->in_closed)
        return schedule(c);
    while (n && !c->waiting.length && c->writable) {
        ssize_t part = send(c->fd, bytes, n, MSG_NOSIGNAL);
        if (part < 0)
            break; /* flush_input meets the same error and deals with it */
        bytes += part;
        n -= (size_t)part;
    }
    if (!blocks_append(&c->waiting, bytes, n))
        return break_off(c, ENOBUFS);
    if (n)
        flush_input(c);
    schedule(c);
}

void connection_receive(const struct frame *frame)
{
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    uint64_t offset = take_u64(&r);
    uint32_t channel = frame->stream & 3;
    struct connection *c = find(frame->stream >> 2);
    if (!c || r.bad || channel != (frame->type == TYPE_ACK ? CHANNEL_OUTPUT : CHANNEL_INPUT))
        return;
    if (frame->type == TYPE_ACK)
        return receive_ack(c, offset);
    if (c->fd < 0)
        return;
    if (frame->type == TYPE_DATA)
        return receive_data(c, offset, r.at, (size_t)(r.end - r.at));
    c->eof_known = c->eof_known || offset == c->received;
    if (!c->connecting)
        flush_input(c);
}

/* Begins to connect. Returns 0, -EINPROGRESS, or -errno and there is no socket. */
static int attempt(struct connection *c, const char *address)
{
    int error = dial(address, c->port, &c->fd);
    if (c->fd < 0)
        return error;
    int watched = events_watch(c->fd, EVENT_CONNECTION | place_of(c), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    if (!watched)
        return error;
    close_socket(c, false);
    return watched;
}

/* 127.0.0.1 has failed with c->error: ::1 is next. Returns as attempt does; what the first said tells more. */
static int attempt_second(struct connection *c)
{
    c->tries_both = false;
    int error = attempt(c, "::1");
    return error && error != -EINPROGRESS ? -c->error : error;
}

int connection_open(const struct frame *frame)
{
    char address[ADDRESS_BYTES];
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    uint32_t id = frame->stream >> 2;
    uint16_t port = take_u16(&r), zero = take_u16(&r);
    take_string(&r, address, sizeof address);
    if (!reader_done(&r) || zero || !port || !is_connection(id))
        return -EINVAL;
    struct connection *c = &places[id % MAX_CONNECTIONS];
    if (in_use(place_of(c)))
        return -EEXIST;
    memset(c, 0, sizeof *c);
    c->port = port;
    c->tries_both = !*address;
    int error = attempt(c, *address ? address : "127.0.0.1");
    if (error && error != -EINPROGRESS && c->tries_both) {
        c->error = -error;
        error = attempt_second(c);
    }
    if (error && error != -EINPROGRESS)
        return error;
    used[place_of(c) / PLACES_A_WORD] |= 1ull << place_of(c) % PLACES_A_WORD;
    count++;
    c->id = id;
    c->connecting = error != 0;
    c->writable = !c->connecting;
    c->error = c->connecting ? c->error : 0;
    return c->connecting ? DEFERRED : 0;
}

static void go_on_connecting(struct connection *c)
{
    int error = dial_result(c->fd);
    if (error && error != -EINPROGRESS) {
        close_socket(c, false);
        c->error = c->tries_both ? -error : c->error ? c->error : -error;
        error = c->tries_both ? attempt_second(c) : -c->error;
    }
    c->connecting = error == -EINPROGRESS;
    if (c->connecting)
        return;
    c->error = -error;
    c->reply_due = true;
    c->writable = !error;
    schedule(c);
    if (!error)
        flush_input(c);
}

int connection_release(uint32_t id)
{
    struct connection *c = find(id);
    if (!c)
        return -ENOENT;
    if (c->connecting || c->reply_due) /* the host has given up waiting: two answers, in this order */
        session_reply(id << 2, c->connecting ? -ECANCELED : -c->error, NULL, 0);
    forget(c);
    return 0;
}

void connections_reset(void)
{
    for (unsigned word = 0; count && word < MAX_CONNECTIONS / PLACES_A_WORD; word++)
        while (used[word])
            forget(&places[word * PLACES_A_WORD + (unsigned)__builtin_ctzll(used[word])]);
    turns_clear();
}

void connection_event(unsigned place, uint32_t epoll_events)
{
    struct connection *c = &places[place];
    bool ended = epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (!in_use(place) || c->fd < 0)
        return;
    if (c->connecting)
        go_on_connecting(c);
    if (c->connecting || c->fd < 0)
        return;
    c->hung_up = c->hung_up || ended;
    if (ended || epoll_events & EPOLLIN) {
        c->readable = !c->out_ended;
        schedule(c);
    }
    if (epoll_events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        c->writable = true;
        flush_input(c);
    }
}

/* Reads straight into the send buffer. */
static void compose_data(struct connection *c)
{
    size_t room = out_room(c), space = session_room() - DATA_HEAD_BYTES;
    if (!c->readable || !room)
        return;
    struct writer w = session_begin(TYPE_DATA, c->id << 2 | CHANNEL_OUTPUT);
    put_u64(&w, c->sent);
    if (room > space)
        room = space;
    ssize_t n = recv(c->fd, w.at, room, 0);
    if (n > 0) {
        w.at += n;
        session_end(&w);
        c->sent += (uint64_t)n;
        count_out(c, c->sent - (uint64_t)n - c->out_acked);
        c->readable = (size_t)n == room || c->hung_up; /* epoll tells of what comes after */
    } else if (n == 0 || errno == EAGAIN) {
        c->out_ended = n == 0;
        c->readable = false;
    } else if (errno != EINTR) {
        break_off(c, errno);
    }
}

static void compose_exit(struct connection *c)
{
    struct writer w = session_begin(TYPE_EXIT, c->id << 2);
    put_u64(&w, c->error ? (uint32_t)-1 : 0); /* code and signal */
    put_u64(&w, (uint32_t)c->error);
    for (int i = 0; i < 3; i++)
        put_u64(&w, 0);
    put_u64(&w, c->sent);
    put_u64(&w, 0);
    session_end(&w);
    close_socket(c, false);
    c->over = true;
}

static void compose(struct connection *c)
{
    size_t before = session_room();
    if (c->reply_due) {
        c->reply_due = false;
        session_reply(c->id << 2, -c->error, NULL, 0);
        if (c->error)
            return forget(c);
    }
    if (c->connecting || c->over)
        return;
    if (!c->broken)
        compose_data(c);
    if (c->out_ended && !c->eof_sent) {
        session_offset(TYPE_EOF, c->id << 2 | CHANNEL_OUTPUT, c->sent);
        c->eof_sent = true;
    }
    uint64_t kept = c->received - c->waiting.length;
    if (kept - c->in_acked >= (session_room() < before ? 1 : ACK_BYTES) && !c->broken) {
        session_offset(TYPE_ACK, c->id << 2 | CHANNEL_INPUT, kept);
        c->in_acked = kept;
    }
    if (c->broken || (c->out_ended && c->in_closed))
        return compose_exit(c);
    if (c->readable && out_room(c))
        schedule(c);
}

void connections_compose(void)
{
    while (turns_count() && session_room() >= LEAST_ROOM_BYTES) {
        unsigned place = turns_take();
        if (in_use(place))
            compose(&places[place]);
    }
}
