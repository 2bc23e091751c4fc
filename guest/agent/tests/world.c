#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "container.h"
#include "deferred.h"
#include "connection.h"
#include "drain.h"
#include "files.h"
#include "first.h"
#include "network.h"
#include "object.h"
#include "process.h"
#include "session.h"
#include "spawn.h"
#include "transfer.h"

#define INBOX_BYTES (4u << 20)
#define OUTBOX_BYTES (16u << 20)
#define MAX_ROUNDS 100000
#define FILE_BYTES 1000

struct world_process world_processes[WORLD_PROCESSES];
static uint8_t *inbox, *outbox;
static size_t inbox_at, inbox_end, outbox_at, outbox_end, accept_total, accept_at_once, late_by;
static pid_t next_pid = 100, child_pid; /* child_pid: the one of deferred_start */
static char directory[PATH_MAX];

pid_t __wrap_fork(void);
int __wrap_kill(pid_t pid, int signal);
pid_t __wrap_wait4(pid_t pid, int *status, int options, struct rusage *usage);

static ssize_t port_read(void *bytes, size_t n)
{
    if (inbox_at == inbox_end || late_by) {
        late_by -= late_by > 0;
        return -EAGAIN;
    }
    if (n > inbox_end - inbox_at)
        n = inbox_end - inbox_at;
    memcpy(bytes, inbox + inbox_at, n);
    inbox_at += n;
    return (ssize_t)n;
}

static ssize_t port_write(const void *bytes, size_t n)
{
    if (n > accept_total)
        n = accept_total;
    if (n > accept_at_once)
        n = accept_at_once;
    if (n == 0 || n > OUTBOX_BYTES - outbox_end)
        return -EAGAIN;
    memcpy(outbox + outbox_end, bytes, n);
    outbox_end += n;
    accept_total -= n;
    return (ssize_t)n;
}

static const struct port port = {port_read, port_write};

/* Processes */

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int make_pipe(bool agent_reads, int *agents, int *processes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    *agents = ends[!agent_reads];
    *processes = ends[agent_reads];
    return 0;
}

int spawn_process(const struct spawn *request, struct spawned *result)
{
    struct world_process *p = world_processes;
    while (p < world_processes + WORLD_PROCESSES && p->pid)
        p++;
    if (p == world_processes + WORLD_PROCESSES || !strcmp(request->argv[0], "fails"))
        return p == world_processes + WORLD_PROCESSES ? -EAGAIN : -ENOENT;
    *p = (struct world_process){.pid = ++next_pid, .input = -1, .outputs = {-1, -1}};
    *result = (struct spawned){p->pid, -1, -1, -1};
    int error = request->flags & EXEC_STDIN ? make_pipe(false, &result->input, &p->input) : 0;
    if (!error)
        error = make_pipe(true, &result->output, &p->outputs[0]);
    if (!error)
        error = make_pipe(true, &result->error, &p->outputs[1]);
    if (error)
        abort();
    return 0;
}

void spawn_keep_file_limit(const struct rlimit *limit) { (void)limit; }

void world_exit(struct world_process *process, int status)
{
    if (!process->pid || process->ended)
        return;
    close_end(&process->input);
    close_end(&process->outputs[0]);
    close_end(&process->outputs[1]);
    process->status = status;
    process->ended = true;
}

int __wrap_kill(pid_t pid, int signal)
{
    for (struct world_process *p = world_processes; p < world_processes + WORLD_PROCESSES; p++) {
        if (!p->pid || (p->pid != pid && p->pid != -pid))
            continue;
        if (signal == SIGKILL)
            world_exit(p, SIGKILL);
        return 0;
    }
    errno = ESRCH;
    return -1;
}

pid_t __wrap_wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    (void)pid;
    (void)options;
    memset(usage, 0, sizeof *usage);
    *status = 0;
    if (child_pid) {
        pid = child_pid;
        child_pid = 0;
        return pid;
    }
    for (struct world_process *p = world_processes; p < world_processes + WORLD_PROCESSES; p++) {
        if (!p->pid || !p->ended)
            continue;
        pid = p->pid;
        *status = p->status;
        p->pid = 0;
        return pid;
    }
    return 0;
}

pid_t __wrap_fork(void) { return child_pid = ++next_pid; }

/* Files */

void files_set_root(int fd) { (void)fd; }

int files_open(const char *path, uint64_t flags, mode_t mode)
{
    (void)flags;
    (void)mode;
    if (!strncmp(path, "/missing", 8))
        return -ENOENT;
    int fd = memfd_create("file", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, FILE_BYTES))
        abort();
    return fd < 0 ? -errno : fd;
}

int files_open_parent(const char *path, int parents, char *name)
{
    (void)parents;
    if (!strncmp(path, "/missing", 8))
        return -ENOENT;
    strcpy(name, "file");
    return open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int files_stat(const char *path, uint32_t flags, struct writer *result)
{
    (void)flags;
    put_string(result, path);
    return 0;
}

int files_list(const char *path, uint64_t cookie, struct writer *result)
{
    put_u64(result, cookie + 1);
    while (!result->full)
        put_string(result, path);
    return 0;
}

int files_make_directory(const char *path, uint32_t flags, uint32_t mode)
{
    (void)path;
    (void)flags;
    return mode ? 0 : -EEXIST;
}

int files_remove(const char *path, uint32_t flags)
{
    (void)flags;
    return *path ? 0 : -ENOENT;
}

int files_replace(const char *path, const char *text, mode_t mode)
{
    (void)path;
    (void)text;
    (void)mode;
    return 0;
}

/* The world */

static void remove_directory(void)
{
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        unlinkat(fd, "file", 0);
    rmdir(directory);
}

void world_init(void)
{
    atexit(remove_directory);
    signal(SIGPIPE, SIG_IGN);
    inbox = malloc(INBOX_BYTES);
    outbox = malloc(OUTBOX_BYTES);
    const char *scratch = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/mayfly-world-XXXXXX", scratch ? scratch : "/tmp");
    if (!inbox || !outbox || !mkdtemp(directory) || streams_init() || connections_init() || deferred_init())
        abort();
}

void world_reset(void)
{
    uint64_t used = objects_used;
    for (struct object *o; (o = object_next(&used));) {
        if (o->kind == KIND_PROCESS)
            process_release(o);
        else
            transfer_release(o);
        object_free(o);
    }
    for (struct world_process *p = world_processes; p < world_processes + WORLD_PROCESSES; p++)
        world_exit(p, 0);
    do {
        process_reap_all();
        deferred_check();
    } while (deferred_busy());
    container_release();
    first_forget();
    while (drain_pump())
        continue;
    connections_reset();
    network_reset();
    cgroup_state = (struct cgroup_state){false, false};
    inbox_at = inbox_end = outbox_at = outbox_end = 0;
    world_accept(SIZE_MAX, SIZE_MAX);
    world_late(0);
    session_init(&port);
}

void world_receive(const void *bytes, size_t n)
{
    if (inbox_at == inbox_end)
        inbox_at = inbox_end = 0;
    if (n > INBOX_BYTES - inbox_end)
        abort();
    if (n)
        memcpy(inbox + inbox_end, bytes, n);
    inbox_end += n;
}

void world_frame(uint8_t type, uint32_t epoch, uint32_t stream, const void *payload, size_t n)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct writer w = {header, header + sizeof header, false};
    put_u8(&w, FRAME_MAGIC);
    put_u8(&w, type);
    put_u16(&w, 0);
    put_u32(&w, epoch);
    put_u32(&w, stream);
    put_u32(&w, (uint32_t)n);
    world_receive(header, sizeof header);
    world_receive(payload, n);
}

void world_hello(uint32_t epoch, const void *offsets, uint32_t count)
{
    uint8_t payload[8 + 12 * 16];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u16(&w, PROTOCOL_VERSION);
    put_u16(&w, 0);
    put_u32(&w, count);
    put_bytes(&w, offsets, 12 * count);
    world_receive(PREAMBLE, PREAMBLE_BYTES);
    world_frame(TYPE_HELLO, epoch, 0, payload, (size_t)(w.at - payload));
}

void world_late(unsigned reads) { late_by = reads; }

void world_accept(size_t total, size_t at_once)
{
    accept_total = total;
    accept_at_once = at_once;
}

static bool pump(void)
{
    uint64_t used = objects_used;
    bool more = false;
    for (struct object *o; (o = object_next(&used));) {
        o->in.writable = true;
        for (int i = 0; i < 2; i++)
            o->out[i].readable = o->out[i].readable || (o->kind == KIND_PROCESS && o->out[i].fd >= 0);
        more = (o->kind == KIND_PROCESS ? process_pump(o) : transfer_pump(o)) || more;
    }
    return more;
}

void world_run(void)
{
    bool more = true;
    session_port_event();
    for (int round = 0; more; round++) {
        if (round > MAX_ROUNDS)
            abort(); /* the agent would spin */
        process_reap_all();
        deferred_check();
        more = session_receive();
        network_events();
        more = pump() || more;
        more = drain_pump() || more;
        more = session_send() || more;
        more = more || child_pid;
    }
}

const uint8_t *world_sent(size_t *n)
{
    *n = outbox_end - outbox_at;
    return outbox + outbox_at;
}

void world_take(size_t n)
{
    outbox_at += n;
    if (outbox_at == outbox_end)
        outbox_at = outbox_end = 0;
}

uint8_t world_next(struct world_frame *frame)
{
    size_t n;
    const uint8_t *bytes = world_sent(&n);
    while (n >= PREAMBLE_BYTES && !memcmp(bytes, PREAMBLE, PREAMBLE_BYTES)) {
        bytes += PREAMBLE_BYTES;
        n -= PREAMBLE_BYTES;
        outbox_at += PREAMBLE_BYTES;
    }
    if (n < FRAME_HEADER_BYTES)
        return 0;
    struct reader r = {bytes, bytes + n, false};
    uint16_t magic_and_type = take_u16(&r), flags = take_u16(&r);
    *frame = (struct world_frame){.type = (uint8_t)(magic_and_type >> 8)};
    frame->epoch = take_u32(&r);
    frame->stream = take_u32(&r);
    frame->length = take_u32(&r);
    if ((magic_and_type & 0xff) != FRAME_MAGIC || flags || frame->length > FRAME_MAX_PAYLOAD)
        abort();
    frame->payload = take_bytes(&r, frame->length);
    if (!frame->payload)
        return 0;
    world_take(FRAME_HEADER_BYTES + frame->length);
    return frame->type;
}

int world_objects(void) { return __builtin_popcountll(objects_used) + (int)connections_count(); }

int world_descriptors(void)
{
    int count = 0;
    DIR *list = opendir("/proc/self/fd");
    while (list && readdir(list))
        count++;
    if (list)
        closedir(list);
    return count;
}
