#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "connection.h"
#include "deferred.h"
#include "drain.h"
#include "events.h"
#include "object.h"
#include "process.h"
#include "requests.h"
#include "session.h"
#include "transfer.h"

#define EVENTS_AT_ONCE 64

static int epoll_fd = -1, signal_fd = -1;

int events_watch(int fd, uint32_t event, uint32_t epoll_events)
{
    struct epoll_event entry = {.events = epoll_events | EPOLLET, .data.u32 = event};
    if (!epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &entry))
        return 0;
    return errno == EEXIST && !epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &entry) ? 0 : -errno;
}

int loop_init(void)
{
    sigset_t all;
    static const unsigned long standard[4]; /* the kernel's sigaction: the C library keeps some signals for itself */
    for (int signal = 1; signal < 65; signal++)
        syscall(SYS_rt_sigaction, signal, standard, NULL, sizeof(long)); /* what children start with */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL); /* a broken pipe then shows as EPIPE only */
    sigemptyset(&all);
    sigaddset(&all, SIGCHLD);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (epoll_fd < 0 || signal_fd < 0)
        return -errno;
    return events_watch(signal_fd, EVENT_CHILD, EPOLLIN);
}

static void stream_event(uint32_t event)
{
    struct object *o = &objects[event >> 2 & (MAX_OBJECTS - 1)];
    switch (event & 3) {
    case CHANNEL_INPUT:
        o->in.writable = true;
        break;
    case CHANNEL_OUTPUT:
        o->out[0].readable = o->out[0].fd >= 0;
        break;
    case CHANNEL_ERROR:
        o->out[1].readable = o->out[1].fd >= 0;
        break;
    default: /* a terminal */
        o->in.writable = true;
        o->out[0].readable = o->out[0].fd >= 0;
    }
}

static void collect_children(void)
{
    struct signalfd_siginfo info;
    while (read(signal_fd, &info, sizeof info) > 0)
        continue;
    process_reap_all();
}

static bool pump_objects(void)
{
    uint64_t used = objects_used;
    bool more = false;
    for (struct object *o; (o = object_next(&used));)
        more = (o->kind == KIND_PROCESS ? process_pump(o) : transfer_pump(o)) || more;
    return more;
}

_Noreturn void loop_run(void (*other)(uint32_t event))
{
    struct epoll_event events[EVENTS_AT_ONCE];
    bool more = true;
    for (;;) {
        /*
         * A VM that is about to be stopped is stopped here, reading: it, and all copies of it, then go on without an interrupt's way through
         * an idle CPU, the scheduler and epoll, which takes half of an emulated guest's time to its first answer. It reads many times in a
         * row, so that the stop finds it in the kernel nearly always: QEMU translates code of the kernel anew after an interrupt that came
         * from user space, since the stack segment is another one then. Nothing is asked of epoll from the answer to the freeze on: the stop may come
         * at once, and whatever epoll has to say is still there afterwards.
         */
        int count = 0;
        if (request_stop_is_near()) {
            session_expect();
        } else {
            request_calm();
            count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, more ? 0 : deferred_timeout_ms());
        }
        for (int i = 0; i < count; i++) {
            uint32_t event = events[i].data.u32;
            if (event & EVENT_CONNECTION)
                connection_event(event & (MAX_CONNECTIONS - 1), events[i].events);
            else if (event & EVENT_STREAM)
                stream_event(event);
            else if (event & EVENT_DRAIN)
                drain_event(event >> 2 & (MAX_OBJECTS - 1));
            else if (event == EVENT_PORT)
                session_port_event();
            else if (event == EVENT_CHILD)
                collect_children();
            else if (event != EVENT_FROZEN)
                other(event);
        }
        deferred_check();
        more = session_receive();
        more = pump_objects() || more;
        more = drain_pump() || more;
        more = session_send() || more;
    }
}
