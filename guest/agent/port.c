#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "protocol.h"
#include "text.h"

#define PORTS "/sys/class/virtio-ports"
#define PORT_LIMIT_MS 10000
#define UEVENT_PROTOCOL 15 /* NETLINK_KOBJECT_UEVENT */

struct netlink_address {
    unsigned short family, padding;
    unsigned int port, groups;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The kernel tells of a port's name after the port itself, so only its events say when to look again. */
static int watch_devices(void)
{
    struct netlink_address address = {AF_NETLINK, 0, 0, 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, UEVENT_PROTOCOL);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
        boot_failed("watch for devices", errno);
    return fd;
}

/* Opens the port of our name if it is there. Returns its descriptor, or -ENOENT while it is not. */
static int find_port(void)
{
    char path[512], name[64];
    int fd = -ENOENT;
    DIR *directory = opendir(PORTS);
    if (!directory)
        return -ENOENT;
    for (struct dirent *entry; fd == -ENOENT && (entry = readdir(directory));) {
        snprintf(path, sizeof path, PORTS "/%s/name", entry->d_name);
        if (text_read_at(AT_FDCWD, path, name, sizeof name) < 0)
            continue;
        name[strcspn(name, "\n")] = 0;
        if (strcmp(name, PORT_NAME))
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
    }
    closedir(directory);
    return fd;
}

int boot_open_port(void)
{
    char event[4096];
    int events = watch_devices(), fd;
    int64_t deadline = now_ms() + PORT_LIMIT_MS;
    while ((fd = find_port()) == -ENOENT) {
        struct pollfd wait = {events, POLLIN, 0};
        int64_t left = deadline - now_ms();
        if (left <= 0)
            boot_failed("find the port " PORT_NAME " (is there a virtserialport of that name?)", ENODEV);
        poll(&wait, 1, (int)left);
        while (recv(events, event, sizeof event, 0) > 0)
            continue;
    }
    if (fd < 0)
        boot_failed("open the port " PORT_NAME, fd);
    close(events);
    return fd;
}
