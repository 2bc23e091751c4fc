#include "descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "options.h"

static int kept; /* pidfd of the process */
static struct pollfd watched[MAX_EVENTS];

void descriptors_of(struct parent *parent, pid_t pid)
{
    if (kept > 0)
        close(kept);
    parent->pid = pid;
    kept = (int)syscall(SYS_PIDFD_OPEN, pid, 0);
    if (kept < 0)
        give_up("cannot open process %d: %s", (int)pid, strerror(errno));
}

void descriptors_open_channel(struct parent *parent)
{
    struct stopped_thread *first = &parent->threads[0].thread;
    int ends[2];
    CALL(first, "make a socket pair", SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, parent->scratch);
    read_there(parent->pid, parent->scratch, ends, sizeof ends);
    parent->channel = (int)syscall(SYS_PIDFD_GETFD, kept, ends[0], 0);
    if (parent->channel < 0)
        give_up("cannot take a descriptor of process %d: %s", (int)parent->pid, strerror(errno));
    CALL(first, "close a descriptor", SYS_close, (uint64_t)ends[0]);
    parent->channel_there = ends[1];
}

/* What is to be known of an event or epoll to make another one. Returns whether it can be made: an epoll that watches something cannot. */
static bool look_at_event(const struct parent *parent, struct event *event, bool is_epoll)
{
    char path[64], line[128];
    unsigned flags = 0;
    bool is_watching = false;
    event->count = 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)parent->pid, event->descriptor);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof line, info)) {
        sscanf(line, "flags: %o", &flags);
        sscanf(line, "eventfd-count: %x", &event->count);
        is_watching |= !strncmp(line, "tfd:", 4);
    }
    if (info)
        fclose(info);
    event->flags = is_epoll ? EMPTY_EPOLL : (int)flags & (O_NONBLOCK | O_CLOEXEC);
    return !is_watching;
}

void descriptors_watch_events(const struct parent *parent)
{
    for (size_t i = 0; i < parent->event_count; i++) {
        const struct event *event = &parent->events[i];
        int ours = event->flags == EMPTY_EPOLL ? -1 : (int)syscall(SYS_PIDFD_GETFD, kept, event->descriptor, 0);
        watched[i] = (struct pollfd){ours, POLLIN, 0};
    }
}

void descriptors_count_events(struct parent *parent)
{
    poll(watched, parent->event_count, 0);
    for (size_t i = 0; i < parent->event_count; i++) {
        struct event *event = &parent->events[i];
        event->count = 0;
        if (watched[i].revents)
            look_at_event(parent, event, false);
        if (watched[i].fd >= 0)
            close(watched[i].fd);
    }
}

/* Whether a socket only waits for connections. One that is connected would say to two what was meant for one. */
static bool only_listens(int descriptor)
{
    int listens = 0, ours = (int)syscall(SYS_PIDFD_GETFD, kept, descriptor, 0);
    socklen_t size = sizeof listens;
    bool known = ours >= 0 && !getsockopt(ours, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (ours >= 0)
        close(ours);
    return known && listens;
}

void descriptors_close_connections(struct parent *parent)
{
    struct stopped_thread *first = &parent->threads[0].thread;
    int ends[2];
    CALL(first, "make a socket pair", SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, parent->scratch);
    read_there(parent->pid, parent->scratch, ends, sizeof ends);
    CALL(first, "close a descriptor", SYS_close, (uint64_t)ends[0]);
    for (size_t i = 0; i < parent->connection_count; i++)
        CALL(first, "close a connection", SYS_dup3, (uint64_t)ends[1], (uint64_t)parent->connections[i], O_CLOEXEC);
    CALL(first, "close a descriptor", SYS_close, (uint64_t)ends[1]);
}

/* The event that was known as that descriptor. */
static const struct event *event_known(const struct event *events, size_t count, int descriptor)
{
    for (size_t i = 0; i < count; i++)
        if (events[i].descriptor == descriptor && events[i].flags != EMPTY_EPOLL)
            return &events[i];
    return NULL;
}

void descriptors_list(struct parent *parent)
{
    static struct event before[MAX_EVENTS];
    const size_t known_count = parent->event_count;
    memcpy(before, parent->events, known_count * sizeof *before);
    parent->event_count = parent->connection_count = 0;
    static const char *const refused[] = {"anon_inode:[io_uring]", "anon_inode:[timerfd]", "anon_inode:kvm", "pipe:"};
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)parent->pid);
    DIR *descriptors = opendir(path);
    if (!descriptors)
        give_up("cannot read %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(descriptors));) {
        ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof target - 1);
        if (length < 0)
            continue; /* . and .. */
        target[length] = 0;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            if (!strncmp(target, refused[i], strlen(refused[i])))
                give_up("process %d has %s open, which no two can have", (int)parent->pid, target);
        int descriptor = (int)strtol(entry->d_name, NULL, 10);
        if (!strncmp(target, "socket:", strlen("socket:")) && !only_listens(descriptor)) {
            if (parent->connection_count == MAX_CONNECTIONS)
                give_up("process %d has more than %d connections", (int)parent->pid, MAX_CONNECTIONS);
            parent->connections[parent->connection_count++] = descriptor;
        }
        bool is_epoll = !strcmp(target, "anon_inode:[eventpoll]");
        if (!is_epoll && strcmp(target, "anon_inode:[eventfd]"))
            continue;
        if (parent->event_count == MAX_EVENTS)
            give_up("process %d has more than %d events", (int)parent->pid, MAX_EVENTS);
        struct event *event = &parent->events[parent->event_count++];
        const struct event *known = is_epoll ? NULL : event_known(before, known_count, descriptor);
        event->descriptor = descriptor;
        if (known)
            *event = *known;
        else if (!look_at_event(parent, event, is_epoll))
            give_up("process %d has %s open and in use, which no two can have", (int)parent->pid, target);
    }
    closedir(descriptors);
}

