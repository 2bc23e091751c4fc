#include "host_side.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "network.h"
#include "wire.h"

struct world_frame frame;

uint32_t u32_at(const uint8_t *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }

uint64_t u64_at(const uint8_t *p) { return u32_at(p) | (uint64_t)u32_at(p + 4) << 32; }

uint32_t out_of(uint32_t id) { return id << 2 | CHANNEL_OUTPUT; }

void send_u64(uint8_t type, uint32_t stream, uint64_t value)
{
    uint8_t payload[8];
    struct writer w = {payload, payload + 8, false};
    put_u64(&w, value);
    world_frame(type, EPOCH, stream, payload, 8);
}

void send_data(uint32_t id, uint64_t offset, const void *bytes, size_t n)
{
    static uint8_t payload[FRAME_MAX_PAYLOAD];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u64(&w, offset);
    put_bytes(&w, bytes, n);
    world_frame(TYPE_DATA, EPOCH, id << 2 | CHANNEL_INPUT, payload, n + 8);
}

void send_exec(uint32_t id, uint32_t flags, const char *program)
{
    uint8_t payload[512];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u32(&w, flags);
    for (int i = 0; i < 3; i++)
        put_u32(&w, 0);
    put_u32(&w, 0); /* rows, columns */
    put_u16(&w, 1);
    put_u16(&w, 0);
    put_u32(&w, 0); /* groups, limits */
    put_u64(&w, UINT64_MAX);
    put_string(&w, "/");
    put_string(&w, program);
    world_frame(TYPE_EXEC, EPOCH, id << 2, payload, (size_t)(w.at - payload));
}

int next_reply(void) { return next_of(TYPE_REPLY) ? (int)u32_at(frame.payload) : -1; }

bool next_of(uint8_t type)
{
    while (world_next(&frame))
        if (frame.type == type)
            return true;
    return false;
}

void begin(void)
{
    world_reset();
    world_hello(EPOCH, NULL, 0);
    world_run();
    world_next(&frame);
}

struct world_process *start(uint32_t id, uint32_t flags)
{
    send_exec(id, flags, "program");
    world_run();
    if (next_reply())
        abort();
    for (struct world_process *p = world_processes; p < world_processes + WORLD_PROCESSES; p++)
        if (p->pid && !p->ended)
            return p;
    abort();
}

void put_out(struct world_process *p, const char *text)
{
    if (write(p->outputs[0], text, strlen(text)) != (ssize_t)strlen(text))
        abort();
}

void send_connect(uint32_t id, uint16_t port, const char *address)
{
    uint8_t payload[128];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u16(&w, port);
    put_u16(&w, 0);
    put_string(&w, address);
    world_frame(TYPE_CONNECT, EPOCH, id << 2, payload, (size_t)(w.at - payload));
}

int connect_errno(uint32_t id, uint16_t port, const char *address)
{
    send_connect(id, port, address);
    world_run();
    return next_reply();
}

int connected(uint32_t id)
{
    int fd = connect_errno(id, SERVER_PORT, "") ? -1 : network_accept();
    if (fd < 0)
        abort();
    return fd;
}

int release(uint32_t id)
{
    world_frame(TYPE_RELEASE, EPOCH, id << 2, NULL, 0);
    world_run();
    return next_reply();
}

uint32_t in_of(uint32_t id) { return id << 2 | CHANNEL_INPUT; }

int next_exit(void) { return next_of(TYPE_EXIT) ? (int)u32_at(frame.payload + 8) : -1; }

uint64_t received_of(uint32_t id)
{
    uint64_t length = 0;
    while (world_next(&frame))
        if (frame.type == TYPE_DATA && frame.stream == out_of(id))
            length += frame.length - 8;
    return length;
}
