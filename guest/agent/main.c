/* PID 1 of the guest. */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "boot.h"
#include "cgroup.h"
#include "connection.h"
#include "container.h"
#include "deferred.h"
#include "events.h"
#include "files.h"
#include "init.h"
#include "loop.h"
#include "session.h"
#include "stream.h"
#include "survey.h"

static int port_fd = -1;

static ssize_t port_read(void *bytes, size_t n)
{
    ssize_t got = read(port_fd, bytes, n);
    return got < 0 ? -errno : got;
}

static ssize_t port_write(const void *bytes, size_t n)
{
    ssize_t put = write(port_fd, bytes, n);
    return put < 0 ? -errno : put;
}

static void no_other_event(uint32_t event) { (void)event; }

static void require(int error, const char *what)
{
    if (error < 0)
        boot_failed(what, error);
}

static void open_root(void)
{
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    require(fd < 0 ? -errno : 0, "open /");
    files_set_root(fd);
}

int main(int argc, char **argv)
{
    static const struct port port = {port_read, port_write};
    const char *group = NULL;
    if (argc > 0 && !strcmp(argv[0], INIT_NAME))
        init_run(argv[1]);
    if (getpid() != 1) {
        int code = argc == 2 ? survey_run(argv[1]) : -1;
        if (code >= 0)
            return code;
        fprintf(stderr, "mayfly-agent: this is PID 1 of a guest; on a host, run mayfly-agent-host\n");
        return 2;
    }
    umask(0);
    prctl(PR_SET_DUMPABLE, 0); /* children share the agent's memory until they exec: nobody is to trace them then */
    boot_machine();
    require(loop_init(), "make the event loop");
    require(streams_init(), "reserve memory for streams");
    require(connections_init(), "reserve memory for connections");
    require(deferred_init(), "share a page with children");
    int error = cgroup_init(&group);
    require(error, group);
    open_root();
    require(container_init(), "prepare for containers");
    require(events_watch(cgroup_events_fd(), EVENT_FROZEN, EPOLLPRI), "watch the freezer");
    port_fd = boot_open_port();
    require(events_watch(port_fd, EVENT_PORT, EPOLLIN | EPOLLOUT), "watch the port");
    session_init(&port);
    dprintf(1, "mayfly-agent: ready\n");
    loop_run(no_other_event);
}
