#include "client.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 20000

static uint8_t payload[FRAME_MAX_PAYLOAD + 1];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

void client_agent_start(struct client_agent *agent, const char *program)
{
    strcpy(agent->directory, "/tmp/mayfly-agent-test-XXXXXX");
    if (!mkdtemp(agent->directory))
        die("client: mkdtemp");
    snprintf(agent->socket_path, sizeof agent->socket_path, "%s/socket", agent->directory);
    snprintf(agent->root_path, sizeof agent->root_path, "%s/root", agent->directory);
    mkdir(agent->root_path, 0755);
    agent->pid = fork();
    if (agent->pid == 0) {
        execl(program, program, "--listen", agent->socket_path, "--root", agent->root_path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000 && access(agent->socket_path, F_OK); i++)
        poll(NULL, 0, 5);
}

void client_agent_stop(struct client_agent *agent)
{
    char command[64];
    kill(agent->pid, SIGKILL);
    waitpid(agent->pid, NULL, 0);
    snprintf(command, sizeof command, "rm -rf %s", agent->directory);
    if (system(command))
        die("client: rm");
}

static void read_all(struct client *c, void *bytes, size_t n)
{
    for (uint8_t *at = bytes; n;) {
        struct pollfd wait = {c->fd, POLLIN, 0};
        if (poll(&wait, 1, DEADLINE_MS) != 1)
            die("client: nothing came from the agent");
        ssize_t part = read(c->fd, at, n);
        if (part <= 0)
            die("client: read");
        at += part;
        n -= (size_t)part;
    }
}

static void write_all(struct client *c, const void *bytes, size_t n)
{
    for (const uint8_t *at = bytes; n;) {
        ssize_t part = send(c->fd, at, n, MSG_NOSIGNAL);
        if (part < 0)
            die("client: write");
        at += part;
        n -= (size_t)part;
    }
}

void client_send(struct client *c, uint8_t type, uint32_t stream, const void *body, size_t n)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct writer w = {header, header + sizeof header, false};
    put_u8(&w, FRAME_MAGIC);
    put_u8(&w, type);
    put_u16(&w, 0);
    put_u32(&w, c->epoch);
    put_u32(&w, stream);
    put_u32(&w, (uint32_t)n);
    write_all(c, header, sizeof header);
    write_all(c, body, n);
}

static void send_u64(struct client *c, uint8_t type, uint32_t stream, uint64_t value)
{
    uint8_t bytes[8];
    struct writer w = {bytes, bytes + 8, false};
    put_u64(&w, value);
    client_send(c, type, stream, bytes, 8);
}

static void take_data(struct client *c, uint32_t stream, struct reader *r)
{
    unsigned which = (stream & 3) == CHANNEL_ERROR;
    uint64_t offset = take_u64(r);
    size_t n = (size_t)(r->end - r->at);
    if (stream >> 2 != c->object)
        return;
    if (offset != c->received[which]) {
        fprintf(stderr, "client: stream goes on at %llu, expected %llu\n", (unsigned long long)offset,
                (unsigned long long)c->received[which]);
        exit(1);
    }
    if (offset + n <= CLIENT_OUTPUT_BYTES)
        memcpy(c->bytes[which] + offset, r->at, n);
    c->received[which] += n;
    if (c->acknowledges)
        send_u64(c, TYPE_ACK, stream, c->received[which]);
}

/* Receives one frame. Returns its type; a REPLY's or HELLO_ACK's payload is in `payload`. */
static uint8_t receive(struct client *c, uint32_t *stream, uint32_t *length)
{
    uint8_t header[FRAME_HEADER_BYTES];
    read_all(c, header, sizeof header);
    struct reader h = {header, header + sizeof header, false};
    uint16_t magic_and_type = take_u16(&h);
    take_u16(&h);
    uint32_t epoch = take_u32(&h);
    *stream = take_u32(&h);
    *length = take_u32(&h);
    if ((magic_and_type & 0xff) != FRAME_MAGIC || epoch != c->epoch || *length > FRAME_MAX_PAYLOAD)
        die("client: malformed frame");
    read_all(c, payload, *length);
    struct reader r = {payload, payload + *length, false};
    uint8_t type = (uint8_t)(magic_and_type >> 8);
    if (type == TYPE_DATA)
        take_data(c, *stream, &r);
    else if (type == TYPE_ACK && *stream >> 2 == c->object)
        c->input_kept = take_u64(&r);
    else if (type == TYPE_EOF && *stream >> 2 == c->object)
        c->ended[(*stream & 3) == CHANNEL_ERROR] = true;
    else if (type == TYPE_EXIT && *stream >> 2 == c->object) {
        c->exit.seen = true;
        c->exit.code = (int32_t)take_u32(&r);
        c->exit.signal = (int32_t)take_u32(&r);
        c->exit.error = (int32_t)take_u32(&r);
        take_bytes(&r, 28);
        c->exit.output_end = take_u64(&r);
        c->exit.error_end = take_u64(&r);
    }
    return type;
}

/* Everything up to the preamble and the header of the answer is of an earlier epoch. */
static void await_answer(struct client *c)
{
    uint8_t expected[PREAMBLE_BYTES + 8] = PREAMBLE, last[PREAMBLE_BYTES + 8] = {0}, rest[8];
    struct writer w = {expected + PREAMBLE_BYTES, expected + sizeof expected, false};
    put_u8(&w, FRAME_MAGIC);
    put_u8(&w, TYPE_HELLO_ACK);
    put_u16(&w, 0);
    put_u32(&w, c->epoch);
    while (memcmp(last, expected, sizeof last)) {
        memmove(last, last + 1, sizeof last - 1);
        read_all(c, last + sizeof last - 1, 1);
    }
    read_all(c, rest, sizeof rest);
    struct reader r = {rest + 4, rest + 8, false};
    uint32_t length = take_u32(&r);
    read_all(c, payload, length);
    r = (struct reader){payload + 40, payload + length, false};
    c->hello_count = take_u32(&r);
    c->hello_state = 0;
    if (c->hello_count) {
        take_bytes(&r, 5);
        c->hello_state = take_bytes(&r, 1)[0];
        take_u16(&r);
        c->input_kept = take_u64(&r);
    }
}

void client_connect(struct client *c, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t hello[32];
    struct writer w = {hello, hello + sizeof hello, false};
    strcpy(address.sun_path, path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        die(path);
    for (int i = 0; i < 2 && !c->bytes[i]; i++)
        c->bytes[i] = malloc(CLIENT_OUTPUT_BYTES);
    c->epoch = c->epoch * 2654435761u + 12345u;
    c->acknowledges = true;
    put_u16(&w, PROTOCOL_VERSION);
    put_u16(&w, 0);
    put_u32(&w, 2);
    for (uint32_t i = 0; i < 2; i++) {
        put_u32(&w, c->object << 2 | (CHANNEL_OUTPUT + i));
        put_u64(&w, c->received[i]);
    }
    write_all(c, PREAMBLE, PREAMBLE_BYTES);
    client_send(c, TYPE_HELLO, 0, hello, (size_t)(w.at - hello));
    await_answer(c);
}

void client_disconnect(struct client *c) { close(c->fd); }

int client_request(struct client *c, uint8_t type, uint32_t stream, const void *body, size_t n, struct reader *result)
{
    uint32_t answered, length;
    if (!stream)
        stream = (1000 + ++c->next_id) << 2;
    client_send(c, type, stream, body, n);
    while (receive(c, &answered, &length) != TYPE_REPLY || answered != stream)
        continue;
    struct reader r = {payload, payload + length, false};
    int error = (int)take_u32(&r);
    if (result)
        *result = r;
    return error;
}

void client_until(struct client *c, const bool *condition)
{
    uint32_t stream, length;
    while (!*condition)
        receive(c, &stream, &length);
}

void client_until_bytes(struct client *c, unsigned channel, uint64_t n)
{
    uint32_t stream, length;
    while (c->received[channel == CHANNEL_ERROR] < n)
        receive(c, &stream, &length);
}

int client_exec(struct client *c, uint32_t flags, const char *cwd, const char *const *argv)
{
    static uint8_t body[8192];
    struct writer w = {body, body + sizeof body, false};
    uint16_t argc = 0;
    while (argv[argc])
        argc++;
    c->object = 1000 + ++c->next_id;
    c->received[0] = c->received[1] = c->input_kept = 0;
    c->ended[0] = c->ended[1] = c->exit.seen = false;
    put_u32(&w, flags);
    put_u32(&w, getuid());
    put_u32(&w, getgid());
    put_u32(&w, 022);
    put_u16(&w, 33);
    put_u16(&w, 99);
    put_u16(&w, argc);
    put_u16(&w, 1);
    put_u32(&w, 0); /* groups, limits */
    put_u64(&w, UINT64_MAX);
    put_string(&w, cwd);
    for (uint16_t i = 0; i < argc; i++)
        put_string(&w, argv[i]);
    put_string(&w, "PATH=/usr/bin:/bin");
    return client_request(c, TYPE_EXEC, c->object << 2, body, (size_t)(w.at - body), NULL);
}

void client_input(struct client *c, uint64_t offset, const void *bytes, size_t n)
{
    static uint8_t body[FRAME_MAX_PAYLOAD];
    struct writer w = {body, body + sizeof body, false};
    put_u64(&w, offset);
    put_bytes(&w, bytes, n);
    client_send(c, TYPE_DATA, c->object << 2 | CHANNEL_INPUT, body, n + 8);
}

void client_input_end(struct client *c, uint64_t offset)
{
    send_u64(c, TYPE_EOF, c->object << 2 | CHANNEL_INPUT, offset);
}

int client_release(struct client *c) { return client_request(c, TYPE_RELEASE, c->object << 2, "", 0, NULL); }
