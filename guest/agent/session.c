#include "session.h"

#include <errno.h>
#include <string.h>

#include "cgroup.h"
#include "connection.h"
#include "deferred.h"
#include "frame.h"
#include "object.h"
#include "process.h"
#include "requests.h"
#include "transfer.h"
#include "wire.h"

#define RECEIVE_BYTES 16384
#define SEND_BYTES 65536
#define SEND_DATA_BELOW 32768u /* a virtio port takes 32 KiB at a time; what is above is kept for answers */
#define RECEIVE_BUDGET_BYTES 262144
#define EXPECTING_READS 256
#define ANSWER_BYTES (MAX_RESULT_BYTES + FRAME_HEADER_BYTES + 4)
#define DATA_HEAD_BYTES (FRAME_HEADER_BYTES + 8)
#define EXIT_BYTES 56

static const struct port *port;
static struct decoder decoder;
static uint32_t epoch; /* 0: no host has said hello yet */
static bool expecting_hello, readable, writable, receive_blocked;
static unsigned reads = 1; /* in a row, while there is nothing */
static bool answer_at_once;

static uint8_t received[RECEIVE_BYTES];
static const uint8_t *received_at, *received_end;

static uint8_t out[SEND_BYTES];
static size_t out_at, out_length;
static unsigned next_slot;

static const uint8_t build_id[BUILD_ID_BYTES + 1] = MAYFLY_BUILD_ID;

void session_init(const struct port *new_port)
{
    port = new_port;
    decoder_init(&decoder);
    received_at = received_end = received;
    out_at = out_length = 0;
    epoch = 0;
    expecting_hello = false;
    readable = writable = true;
}

uint32_t session_epoch(void) { return epoch; }

void session_port_event(void) { readable = writable = true; }

void session_expect(void)
{
    session_port_event();
    reads = EXPECTING_READS;
}

static ssize_t read_port(void)
{
    ssize_t n;
    do {
        n = port->read(received, sizeof received);
    } while (n == -EAGAIN && --reads);
    answer_at_once = reads > 1 && n > 0;
    reads = 1;
    return n;
}

/* Starts a frame in the send buffer; the caller has made sure that there is room. */
struct writer session_begin(uint8_t type, uint32_t stream)
{
    struct writer w = {out + out_length, out + SEND_BYTES, false};
    put_u8(&w, FRAME_MAGIC);
    put_u8(&w, type);
    put_u16(&w, 0);
    put_u32(&w, epoch);
    put_u32(&w, stream);
    put_u32(&w, 0);
    return w;
}

void session_end(struct writer *w)
{
    struct writer head = {out + out_length + 12, out + SEND_BYTES, false};
    if (w->full)
        return;
    put_u32(&head, (uint32_t)(w->at - (out + out_length) - FRAME_HEADER_BYTES));
    out_length = (size_t)(w->at - out);
}

size_t session_room(void) { return out_length < SEND_DATA_BELOW ? SEND_DATA_BELOW - out_length : 0; }

void session_reply(uint32_t stream, int error, const void *result, size_t length)
{
    struct writer w = session_begin(TYPE_REPLY, stream);
    put_u32(&w, (uint32_t)-error);
    if (!error)
        put_bytes(&w, result, length);
    session_end(&w);
}

void session_offset(uint8_t type, uint32_t stream, uint64_t offset)
{
    struct writer w = session_begin(type, stream);
    put_u64(&w, offset);
    session_end(&w);
}

static void send_exit(struct object *o)
{
    struct writer w = session_begin(TYPE_EXIT, o->id << 2);
    put_u32(&w, (uint32_t)o->code);
    put_u32(&w, (uint32_t)o->signal);
    put_u32(&w, (uint32_t)o->error);
    put_u32(&w, 0);
    put_u64(&w, o->user_us);
    put_u64(&w, o->system_us);
    put_u64(&w, o->max_rss_bytes);
    put_u64(&w, out_end(&o->out[0]));
    put_u64(&w, out_end(&o->out[1]));
    session_end(&w);
    o->exit_sent = true;
}

static void answer_hello(void)
{
    struct writer w = {out + out_length, out + SEND_BYTES, false};
    uint64_t used = objects_used;
    put_bytes(&w, PREAMBLE, PREAMBLE_BYTES);
    out_length = (size_t)(w.at - out);
    w = session_begin(TYPE_HELLO_ACK, 0);
    put_u16(&w, PROTOCOL_VERSION);
    put_u16(&w, (uint16_t)((cgroup_state.identity_pending ? HELLO_FLAG_IDENTITY_PENDING : 0) |
                           (cgroup_state.frozen ? HELLO_FLAG_FROZEN : 0)));
    put_u32(&w, FRAME_MAX_PAYLOAD);
    put_u32(&w, STREAM_WINDOW_BYTES);
    put_u32(&w, MAX_OBJECTS);
    put_u32(&w, MAX_BUFFERED_BYTES);
    put_u32(&w, MAX_CONNECTIONS);
    put_bytes(&w, build_id, BUILD_ID_BYTES);
    put_u32(&w, (uint32_t)__builtin_popcountll(used));
    for (struct object *o; (o = object_next(&used));) {
        put_u32(&w, o->id);
        put_u8(&w, o->kind);
        put_u8(&w, object_ended(o) ? STATE_ENDED : STATE_ACTIVE);
        put_u16(&w, 0);
        put_u64(&w, o->in.kept);
        put_u64(&w, out_end(&o->out[0]));
        put_u64(&w, out_end(&o->out[1]));
    }
    session_end(&w);
}

/* What was sent in the last epoch may have been lost: go back to what is acknowledged, and drop input not delivered. */
static void rewind_objects(void)
{
    uint64_t used = objects_used;
    for (struct object *o; (o = object_next(&used));) {
        for (int i = 0; i < 2; i++) {
            o->out[i].sent = o->out[i].acked;
            o->out[i].eof_sent = false;
        }
        o->exit_sent = false;
        in_forget(&o->in);
    }
}

static void receive_hello(const struct frame *frame)
{
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    uint16_t version = take_u16(&r), flags = take_u16(&r);
    uint32_t count = take_u32(&r);
    expecting_hello = false;
    if (frame->type != TYPE_HELLO || frame->epoch == 0 || r.bad || (uint64_t)(r.end - r.at) != (uint64_t)count * 12) {
        decoder_hunt(&decoder);
        return;
    }
    (void)version; /* the answer has ours: it is for the host to decide whether that will do */
    (void)flags;
    epoch = frame->epoch;
    out_at = out_length = 0;
    while (count--) {
        uint32_t stream = take_u32(&r);
        uint64_t offset = take_u64(&r);
        struct object *o = object_find(stream >> 2);
        struct out_stream *s = o ? &o->out[(stream & 3) == CHANNEL_ERROR] : NULL;
        if (s && (stream & 3) >= CHANNEL_OUTPUT)
            out_acknowledge(s, offset, out_end(s));
    }
    rewind_objects();
    connections_reset();
    answer_hello();
}

static void receive_stream(const struct frame *frame)
{
    if (is_connection(frame->stream >> 2))
        return connection_receive(frame);
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    uint64_t offset = take_u64(&r);
    uint32_t channel = frame->stream & 3;
    struct object *o = object_find(frame->stream >> 2);
    if (!o || r.bad)
        return;
    if (frame->type == TYPE_ACK) {
        struct out_stream *s = &o->out[channel == CHANNEL_ERROR];
        if (channel >= CHANNEL_OUTPUT && r.at == r.end)
            out_acknowledge(s, offset, s->sent);
        return;
    }
    if (channel != CHANNEL_INPUT || o->exited || o->kind == KIND_FILE_READ)
        return;
    if (frame->type == TYPE_DATA) {
        if (o->kind == KIND_FILE_WRITE)
            transfer_data(o, offset, r.at, (size_t)(r.end - r.at));
        else
            in_accept(&o->in, offset, r.at, (size_t)(r.end - r.at));
    } else if (r.at == r.end && offset == in_received(&o->in)) {
        o->in.eof_known = true;
        o->in.eof_offset = offset;
        if (o->kind == KIND_FILE_WRITE)
            transfer_finish(o);
    }
}

static void release(const struct frame *frame)
{
    struct object *o = object_find(frame->stream >> 2);
    if ((frame->stream & 3) || frame->length)
        return session_reply(frame->stream, -EINVAL, NULL, 0);
    if (is_connection(frame->stream >> 2))
        return session_reply(frame->stream, connection_release(frame->stream >> 2), NULL, 0);
    if (!o)
        return session_reply(frame->stream, -ENOENT, NULL, 0);
    if (o->kind == KIND_PROCESS)
        process_release(o);
    else
        transfer_release(o);
    object_free(o);
    session_reply(frame->stream, 0, NULL, 0);
}

static void dispatch(const struct frame *frame)
{
    static uint8_t result[MAX_RESULT_BYTES];
    if (expecting_hello)
        return receive_hello(frame);
    if (epoch == 0 || frame->epoch != epoch)
        return;
    if (frame->type == TYPE_DATA || frame->type == TYPE_ACK || frame->type == TYPE_EOF)
        return receive_stream(frame);
    if (frame->type < TYPE_RELEASE)
        return; /* the agent's own frames, and a hello without a preamble */
    if (frame->type == TYPE_RELEASE)
        return release(frame);
    struct writer w = {result, result + sizeof result, false};
    int error = (frame->stream & 3) ? -EINVAL : request_run(frame, &w);
    if (error == DEFERRED)
        return;
    session_reply(frame->stream, error, result, (size_t)(w.at - result));
}

/* A request is only read when its answer has room, and not while another one is being carried out. */
static bool may_receive(void) { return !deferred_busy() && SEND_BYTES - out_length >= ANSWER_BYTES; }

bool session_receive(void)
{
    struct frame frame;
    size_t budget = RECEIVE_BUDGET_BYTES;
    while (may_receive()) {
        switch (decoder_feed(&decoder, &received_at, received_end, &frame)) {
        case DECODED_PREAMBLE:
            expecting_hello = true;
            continue;
        case DECODED_FRAME:
            dispatch(&frame);
            continue;
        case DECODED_MORE:
            break;
        }
        if (!readable)
            return false;
        if (budget == 0 || answer_at_once) {
            answer_at_once = false;
            return true;
        }
        ssize_t n = read_port();
        if (n == -EINTR)
            continue;
        if (n <= 0) { /* nothing more now, or no host is connected */
            readable = false;
            decoder_settle(&decoder);
            continue;
        }
        received_at = received;
        received_end = received + n;
        budget = budget > (size_t)n ? budget - (size_t)n : 0;
    }
    receive_blocked = true;
    return false;
}

/* Fills the send buffer with what the object's streams have. */
static void compose_object(struct object *o)
{
    bool all_ended = true;
    for (unsigned i = 0; i < 2; i++) {
        struct out_stream *s = &o->out[i];
        uint32_t stream = o->id << 2 | (CHANNEL_OUTPUT + i);
        while (s->sent < out_end(s) && out_length + DATA_HEAD_BYTES < SEND_DATA_BELOW) {
            struct writer w = session_begin(TYPE_DATA, stream);
            put_u64(&w, s->sent);
            w.at += out_take(s, w.at, SEND_DATA_BELOW - (out_length + DATA_HEAD_BYTES));
            session_end(&w);
        }
        bool has_eof = o->kind == KIND_PROCESS || (o->kind == KIND_FILE_READ && i == 0);
        if (has_eof && s->ended && s->sent == out_end(s) && !s->eof_sent && out_length < SEND_DATA_BELOW) {
            session_offset(TYPE_EOF, stream, s->sent);
            s->eof_sent = true;
        }
        all_ended = all_ended && (s->eof_sent || !has_eof);
    }
    if (all_ended && object_ended(o) && !o->exit_sent && out_length < SEND_DATA_BELOW)
        send_exit(o);
}

static void compose_objects(void)
{
    uint64_t used = objects_used;
    for (struct object *o; out_length < SEND_DATA_BELOW && (o = object_next(&used));) {
        if (o->in.acked == o->in.kept || o->exited)
            continue;
        o->in.acked = o->in.kept;
        session_offset(TYPE_ACK, o->id << 2 | CHANNEL_INPUT, o->in.kept);
    }
    for (unsigned i = 0; i < MAX_OBJECTS && out_length < SEND_DATA_BELOW; i++) {
        unsigned slot = next_slot;
        next_slot = (next_slot + 1) % MAX_OBJECTS; /* the next round begins with whoever had no room in this one */
        if (objects_used >> slot & 1)
            compose_object(&objects[slot]);
    }
}

/* Objects and connections take turns at the first place, so that neither keeps the port to itself. */
static void compose(void)
{
    static bool connections_first;
    connections_first = !connections_first;
    if (connections_first)
        connections_compose();
    compose_objects();
    if (!connections_first)
        connections_compose();
}

bool session_send(void)
{
    size_t budget = RECEIVE_BUDGET_BYTES;
    while (epoch && writable) {
        compose();
        if (out_at == out_length)
            break;
        if (budget == 0)
            return true;
        ssize_t n = port->write(out + out_at, out_length - out_at);
        if (n == -EINTR)
            continue;
        if (n <= 0) {
            writable = false;
            break;
        }
        out_at += (size_t)n;
        budget = budget > (size_t)n ? budget - (size_t)n : 0;
        if (out_at == out_length)
            out_at = out_length = 0;
    }
    if (out_at) { /* make room for answers behind what waits */
        memmove(out, out + out_at, out_length - out_at);
        out_length -= out_at;
        out_at = 0;
    }
    bool again = receive_blocked && may_receive();
    receive_blocked = receive_blocked && !again;
    return again;
}
