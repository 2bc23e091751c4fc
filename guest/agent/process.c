#include "process.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "container.h"
#include "deferred.h"
#include "drain.h"
#include "events.h"
#include "first.h"
#include "spawn.h"

#define MAX_STRINGS (FRAME_MAX_PAYLOAD / 2)
#define MAX_GROUPS 256
#define MAX_LIMITS 16 /* RLIM_NLIMITS */
#define EXEC_FLAGS 127u
#define PUMP_BYTES 65536u
#define TERMINAL_DRAIN_BYTES 1048576u /* what a terminal may still deliver after its process has ended */
#define END_OF_TRANSMISSION "\x04"

static char *strings[MAX_STRINGS + 2];
static gid_t group_list[MAX_GROUPS];
static struct spawn_limit limit_list[MAX_LIMITS];

static int parse_exec(uint8_t *payload, size_t length, struct spawn *request)
{
    struct reader r = {payload, payload + length, false};
    request->flags = take_u32(&r);
    request->uid = take_u32(&r);
    request->gid = take_u32(&r);
    request->umask = take_u32(&r);
    request->rows = take_u16(&r);
    request->columns = take_u16(&r);
    size_t argc = take_u16(&r), envc = take_u16(&r), groups = take_u16(&r), limits = take_u16(&r);
    request->capabilities = take_u64(&r);
    if (r.bad || limits > MAX_LIMITS || argc == 0 || argc + envc > MAX_STRINGS || groups > MAX_GROUPS)
        return -EINVAL;
    if (request->flags & ~(uint32_t)EXEC_FLAGS)
        return -EINVAL;
    request->cwd = take_string_in_place(&r);
    request->argv = strings;
    for (size_t i = 0; i < argc && !r.bad; i++)
        strings[i] = take_string_in_place(&r);
    strings[argc] = NULL;
    request->envp = strings + argc + 1;
    for (size_t i = 0; i < envc && !r.bad; i++)
        strings[argc + 1 + i] = take_string_in_place(&r);
    strings[argc + 1 + envc] = NULL;
    for (size_t i = 0; i < groups && !r.bad; i++)
        group_list[i] = take_u32(&r);
    request->groups = group_list;
    request->group_count = groups;
    for (size_t i = 0; i < limits; i++) {
        limit_list[i].resource = take_u32(&r);
        limit_list[i].values[0] = take_u64(&r);
        limit_list[i].values[1] = take_u64(&r);
    }
    request->limits = limit_list;
    request->limit_count = limits;
    return reader_done(&r) ? 0 : -EINVAL;
}

static void watch_streams(struct object *o)
{
    uint32_t base = EVENT_STREAM | object_slot(o) << 2;
    if (o->flags & EXEC_TERMINAL) {
        events_watch(o->out[0].fd, base, EPOLLIN | EPOLLOUT);
    } else {
        if (o->in.fd >= 0)
            events_watch(o->in.fd, base | CHANNEL_INPUT, EPOLLOUT);
        events_watch(o->out[0].fd, base | CHANNEL_OUTPUT, EPOLLIN);
        events_watch(o->out[1].fd, base | CHANNEL_ERROR, EPOLLIN);
    }
    o->in.writable = true;
    o->out[0].readable = true;
    o->out[1].readable = o->out[1].fd >= 0;
}

int process_exec(struct object *o, uint8_t *payload, size_t length)
{
    struct spawn request;
    struct spawned spawned;
    int error = parse_exec(payload, length, &request);
    if (error)
        return error;
    if ((cgroup_state.frozen && !(request.flags & EXEC_HOOK)) || cgroup_state.identity_pending)
        return -EBUSY;
    error = first_admit(request.flags);
    if (error)
        return error;
    int cgroup = cgroup_acquire(request.flags & EXEC_HOOK);
    if (cgroup < 0)
        return cgroup;
    request.cgroup_fd = cgroup_directory(cgroup);
    request.namespaces = request.flags & EXEC_OUTSIDE ? NULL : container_namespaces();
    request.pid_namespace = request.namespaces ? first_namespace() : -1;
    error = spawn_process(&request, &spawned);
    if (error) {
        cgroup_return(cgroup);
        return error;
    }
    if (request.flags & EXEC_FIRST)
        first_started(spawned.pid);
    o->flags = request.flags;
    o->pid = spawned.pid;
    o->cgroup = cgroup;
    o->in.fd = spawned.input;
    o->out[0].fd = spawned.output;
    o->out[1].fd = spawned.error;
    o->out[1].ended = spawned.error < 0;
    watch_streams(o);
    return spawned.pid;
}

int process_signal(struct object *o, uint32_t signal, bool tree)
{
    if (o->kind != KIND_PROCESS || signal > 64)
        return -EINVAL;
    if (tree)
        return cgroup_signal(o->cgroup, o->pid, (int)signal, o->flags & EXEC_INIT ? o->pid : 0);
    if (o->pid == 0)
        return -ESRCH;
    return kill(o->pid, (int)signal) ? -errno : 0;
}

int process_resize(struct object *o, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (o->kind != KIND_PROCESS || !(o->flags & EXEC_TERMINAL))
        return -ENOTTY;
    if (o->out[0].fd < 0)
        return -ESRCH;
    return ioctl(o->out[0].fd, TIOCSWINSZ, &size) ? -errno : 0;
}

static void close_input(struct object *o)
{
    if (o->in.fd >= 0 && !(o->flags & EXEC_TERMINAL))
        close(o->in.fd);
    o->in.fd = -1;
    in_discard(&o->in);
}

static void close_output(struct object *o, struct out_stream *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->readable = false;
    s->ended = true;
    if ((o->flags & EXEC_TERMINAL) && s == &o->out[0])
        o->in.fd = -1; /* the same descriptor */
}

/* The process has ended; others may go on writing. */
static void leave_output(struct object *o, struct out_stream *s)
{
    if (!(o->flags & EXEC_TERMINAL)) {
        drain_take(s->fd);
        s->fd = -1;
    }
    close_output(o, s);
}

static void pump_input(struct object *o)
{
    struct in_stream *in = &o->in;
    if (in->fd < 0 || !in->writable)
        return;
    int error = in_flush(in);
    if (error == -EAGAIN || ((o->flags & EXEC_TERMINAL) && error == -EIO))
        return; /* a terminal that nobody has open just now: what was typed is lost, as on any terminal */
    if (error) {
        close_input(o);
    } else if (in->eof_known && in->kept == in->eof_offset) {
        if ((o->flags & EXEC_TERMINAL) && write(in->fd, END_OF_TRANSMISSION, 1) < 0 && errno == EAGAIN)
            in->writable = false;
        else
            close_input(o);
    }
}

/* Returns true if more can be read at once. */
static bool pump_output(struct object *o, struct out_stream *s)
{
    size_t left = PUMP_BYTES;
    while (s->readable && left) {
        if (o->exited && s->drain_left == 0) {
            leave_output(o, s);
            return false;
        }
        if (out_room(s) == 0)
            return false;
        size_t limit = o->exited && s->drain_left < left ? (size_t)s->drain_left : left;
        ssize_t n = out_fill(s, s->fd, limit, -1);
        if (n == -EINTR)
            continue;
        /* EIO: nobody has the terminal open just now. To close it would hang up on a process that is about to end. */
        if (n == -EAGAIN || (n == -EIO && !o->exited)) {
            s->readable = false;
            if (o->exited)
                leave_output(o, s);
            return false;
        }
        if (n <= 0) {
            close_output(o, s);
            return false;
        }
        left -= (size_t)n;
        if (o->exited)
            s->drain_left -= (uint64_t)n;
    }
    return s->readable && out_room(s) > 0;
}

bool process_pump(struct object *o)
{
    pump_input(o);
    bool more = pump_output(o, &o->out[0]);
    return pump_output(o, &o->out[1]) || more;
}

static void process_ended(struct object *o, int status, const struct rusage *usage)
{
    o->pid = 0;
    o->exited = true;
    o->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    o->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    o->user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000u + (uint64_t)usage->ru_utime.tv_usec;
    o->system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000u + (uint64_t)usage->ru_stime.tv_usec;
    o->max_rss_bytes = (uint64_t)usage->ru_maxrss * 1024u;
    if ((o->flags & EXEC_KILL_TREE) && cgroup_is_populated(o->cgroup))
        cgroup_signal(o->cgroup, 0, SIGKILL, 0);
    close_input(o);
    for (int i = 0; i < 2; i++) {
        struct out_stream *s = &o->out[i];
        int held = 0;
        if (s->fd < 0)
            continue;
        /* What processes left behind write from now on is dropped: only what the pipe holds is still read. */
        if (o->flags & EXEC_TERMINAL)
            s->drain_left = TERMINAL_DRAIN_BYTES;
        else if (ioctl(s->fd, FIONREAD, &held) == 0 && held > 0)
            s->drain_left = (uint64_t)held;
        s->readable = true;
    }
}

void process_reap_all(void)
{
    struct rusage usage;
    int status;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        uint64_t used = objects_used;
        struct object *o;
        while ((o = object_next(&used)) && !(o->kind == KIND_PROCESS && o->pid == pid))
            continue;
        bool is_init = first_reaped(pid);
        if (o)
            process_ended(o, status, &usage);
        else if (!is_init)
            deferred_reaped(pid, status);
    }
}

void process_release(struct object *o)
{
    if (o->pid)
        cgroup_signal(o->cgroup, o->pid, SIGKILL, 0);
    close_input(o);
    close_output(o, &o->out[0]);
    close_output(o, &o->out[1]);
    if (o->cgroup >= 0)
        cgroup_return(o->cgroup);
}
