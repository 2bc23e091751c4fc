/*
 * Fuzzes the decoder and everything behind it. The input is a list of commands: raw bytes, connections, well-formed
 * frames with arbitrary payloads, a port that takes few bytes, processes that write and end, a server that answers and
 * hangs up. What the agent sends after a hello has to be well-formed, no stream may exceed its window, and no descriptor
 * may be left at the end.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "network.h"
#include "wire.h"
#include "world.h"

#define EPOCH 1u
#define STREAMS 64
#define CONNECTIONS ((uint32_t)FIRST_CONNECTION_ID << 2) /* the first STREAMS of these are looked at too */
#define SERVERS 8

enum command { RAW, HELLO, FRAME, SHORT_FRAME, PORT, OUTPUT, END_PROCESS, ACKNOWLEDGE, COMMANDS, SERVER = COMMANDS };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static uint64_t received[2 * STREAMS], acknowledged[2 * STREAMS];
static int servers[SERVERS]; /* a descriptor and one, or 0 */
static uint32_t epoch;
static bool checkable; /* since the last hello nothing was sent that might be another one */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    world_init();
    return 0;
}

static void connect_host(struct reader *r)
{
    uint8_t offsets[12 * 4];
    struct writer w = {offsets, offsets + sizeof offsets, false};
    uint32_t count = take_u16(r) % 5;
    size_t n;
    for (uint32_t i = 0; i < count; i++) {
        put_u32(&w, take_u16(r) % STREAMS);
        put_u64(&w, take_u16(r));
    }
    world_run();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    world_sent(&n);
    world_take(n);
    world_hello(++epoch, offsets, count);
    world_run();
    memset(received, 0xff, sizeof received); /* any offset is fine for the first bytes of a stream */
    memset(acknowledged, 0, sizeof acknowledged);
    checkable = true;
}

/* Stops where a frame is cut: the port has not taken the rest yet. */
static void check_sent(void)
{
    struct world_frame frame;
    size_t n;
    if (!checkable) {
        world_sent(&n);
        world_take(n);
        return;
    }
    while (world_next(&frame)) {
        if (frame.epoch != epoch || frame.type == TYPE_HELLO)
            abort();
        if (frame.type != TYPE_DATA || (frame.stream & ~CONNECTIONS) >= STREAMS)
            continue;
        uint32_t stream = frame.stream >= CONNECTIONS ? frame.stream - CONNECTIONS + STREAMS : frame.stream;
        struct reader r = {frame.payload, frame.payload + frame.length, false};
        uint64_t offset = take_u64(&r);
        if (received[stream] != UINT64_MAX && received[stream] != offset && offset != 0)
            abort(); /* offset 0: another object of the same id */
        received[stream] = offset + frame.length - 8;
        if (received[stream] - acknowledged[stream] > STREAM_WINDOW_BYTES && acknowledged[stream])
            abort();
    }
}

static void acknowledge(struct reader *r)
{
    uint8_t payload[8];
    struct writer w = {payload, payload + 8, false};
    uint32_t stream = take_u16(r) % (2 * STREAMS);
    uint64_t offset = received[stream] == UINT64_MAX ? take_u16(r) : received[stream] - take_u16(r) % 3;
    put_u64(&w, offset);
    world_frame(TYPE_ACK, epoch, stream < STREAMS ? stream : stream - STREAMS + CONNECTIONS, payload, sizeof payload);
}

/* The server takes a connection, writes to one, reads from it, closes or resets it. */
static void serve(struct reader *r)
{
    static uint8_t block[65536];
    uint16_t what = take_u16(r);
    int *server = &servers[what % SERVERS];
    if (!*server) {
        *server = network_accept() + 1;
        return;
    }
    ssize_t moved = what & 0x10 ? write(*server - 1, block, what) : read(*server - 1, block, what);
    if (moved > 0 || what & 0x40)
        return;
    if (what & 0x20)
        close(*server - 1);
    else
        network_abort(*server - 1);
    *server = 0;
}

static void write_output(struct reader *r)
{
    static uint8_t block[65536];
    struct world_process *p = &world_processes[take_u16(r) % 4];
    size_t n = take_u16(r);
    int fd = p->pid && !p->ended ? p->outputs[n & 1] : -1;
    if (fd >= 0 && write(fd, block, n) < 0)
        return; /* full */
}

/* Returns false when the input is used up. */
static bool run_command(struct reader *r)
{
    const uint8_t *first = take_bytes(r, 1);
    if (!first)
        return false;
    enum command command = *first & 0x20 ? SERVER : *first % COMMANDS;
    if (command == RAW || command == FRAME || command == SHORT_FRAME) {
        uint16_t head = command == RAW ? 0 : take_u16(r);
        size_t n = command == SHORT_FRAME ? 8 : take_u16(r) % 2048;
        if (n > (size_t)(r->end - r->at))
            n = (size_t)(r->end - r->at);
        const uint8_t *bytes = take_bytes(r, n);
        if (!bytes)
            return false;
        if (command == RAW)
            world_receive(bytes, n);
        else
            world_frame(head & 127, epoch, (head >> 7) % STREAMS + (*first & 0x40 ? CONNECTIONS : 0), bytes, n);
        checkable = checkable && command != RAW && !memmem(bytes, n, PREAMBLE, 4);
    } else if (command == HELLO) {
        connect_host(r);
    } else if (command == PORT) {
        size_t total = take_u16(r);
        world_accept(total > 60000 ? SIZE_MAX : total, take_u16(r) % 5000u + 1);
    } else if (command == OUTPUT) {
        write_output(r);
    } else if (command == END_PROCESS) {
        struct world_process *p = &world_processes[take_u16(r) % 4];
        world_exit(p, take_u16(r) & 0xff7f);
    } else if (command == SERVER) {
        serve(r);
    } else {
        acknowledge(r);
    }
    if (*first & 0x80)
        world_run();
    return !r->bad;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct reader r = {bytes, bytes + size, false};
    world_reset();
    int before = dup(0);
    close(before);
    epoch = EPOCH;
    checkable = false;
    memset(servers, 0, sizeof servers);
    while (run_command(&r))
        check_sent();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    for (int i = 0; i < SERVERS; i++) {
        if (servers[i])
            close(servers[i] - 1);
        servers[i] = 0;
    }
    world_reset();
    int after = dup(0);
    close(after);
    if (after != before || world_objects())
        abort();
    return 0;
}
