/*
 * For tests: what listens inside a guest, each port with one habit. One process, so that hundreds of connections cost the guest nothing
 * but themselves. Prints `ready` once all ports are listened on.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_DESCRIPTORS 8192
#define BUFFER_BYTES 8192
#define SMALL_BUFFER 8192 /* of a socket: what is stuck holds no more of the guest's memory */

enum habit {
    NONE,
    HTTP,      /* answers each request with its own target; the connection is kept unless the request says otherwise */
    ECHO,      /* sends back what it gets, and ends when it is told the end */
    RESET,     /* breaks the connection at the first byte */
    ENDLESS,   /* sends the numbers from 0 on, 4 bytes each */
    SILENT,    /* never reads */
    LAST_WORD, /* says `bye`, ends its direction, and writes what it gets into /tmp/heard */
};

struct port {
    int number, family;
    enum habit habit;
};

static const struct port ports[] = {
    {8080, AF_INET, HTTP},    {9000, AF_INET, ECHO},   {9002, AF_INET, RESET},
    {9003, AF_INET, ENDLESS}, {9004, AF_INET, SILENT}, {9005, AF_INET6, HTTP}, {9006, AF_INET, LAST_WORD},
};

struct peer {
    enum habit habit;
    bool listens, ended;
    char *buffer;
    size_t from, to;
    uint32_t next;
    int heard;
};

static struct peer peers[MOST_DESCRIPTORS];
static int epoll_fd;

static void watch(int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, operation, fd, &event);
}

static void listen_on(const struct port *port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port->number), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port->number), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bool is_six = port->family == AF_INET6;
    int fd = socket(port->family, SOCK_STREAM | SOCK_NONBLOCK, 0), size = SMALL_BUFFER;
    if (port->habit == ENDLESS)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (port->habit == SILENT)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct sockaddr *address = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    if (fd < 0 || bind(fd, address, is_six ? sizeof six : sizeof four) || listen(fd, 4096)) {
        perror("listen");
        exit(1);
    }
    peers[fd] = (struct peer){.habit = port->habit, .listens = true};
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void hang_up(int fd)
{
    free(peers[fd].buffer);
    if (peers[fd].heard > 0)
        close(peers[fd].heard);
    peers[fd] = (struct peer){0};
    close(fd);
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct peer *p = &peers[fd];
        *p = (struct peer){.habit = peers[listener].habit, .buffer = malloc(BUFFER_BYTES)};
        if (p->habit == LAST_WORD) {
            p->heard = open("/tmp/heard.part", O_WRONLY | O_CREAT | O_TRUNC, 0644);
            if (write(fd, "bye", 3) != 3)
                abort();
            shutdown(fd, SHUT_WR);
        }
        watch(fd, p->habit == SILENT ? 0 : p->habit == ENDLESS ? EPOLLOUT : EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* The answer to a request takes the place of the request in the buffer. Returns false while that is not whole. */
static bool answer(struct peer *p)
{
    char target[256] = "", text[BUFFER_BYTES];
    p->buffer[p->to < BUFFER_BYTES ? p->to : BUFFER_BYTES - 1] = 0;
    if (!strstr(p->buffer, "\r\n\r\n"))
        return false;
    sscanf(p->buffer, "GET %255s", target);
    p->ended = strstr(p->buffer, "connection: close");
    int length = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%s", strlen(target), target);
    memcpy(p->buffer, text, (size_t)length);
    p->from = 0;
    p->to = (size_t)length;
    return true;
}

static void take(int fd)
{
    struct peer *p = &peers[fd];
    ssize_t n = read(fd, p->buffer + p->to, BUFFER_BYTES - p->to);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0 && p->habit == RESET) {
        struct linger at_once = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        return hang_up(fd);
    }
    if (n <= 0) {
        if (p->habit == LAST_WORD)
            rename("/tmp/heard.part", "/tmp/heard");
        return hang_up(fd);
    }
    if (p->habit == LAST_WORD) {
        if (write(p->heard, p->buffer, (size_t)n) != n)
            abort();
        return;
    }
    p->to += (size_t)n;
    if (p->habit == ECHO || answer(p))
        watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
}

static void give(int fd)
{
    struct peer *p = &peers[fd];
    if (p->from == p->to && p->habit == ENDLESS) {
        for (p->to = 0; p->to < BUFFER_BYTES; p->to += 4, p->next++)
            memcpy(p->buffer + p->to, &p->next, 4);
        p->from = 0;
    }
    ssize_t n = write(fd, p->buffer + p->from, p->to - p->from);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        return hang_up(fd);
    p->from += (size_t)n;
    if (p->from < p->to || p->habit == ENDLESS)
        return;
    p->from = p->to = 0;
    if (p->ended)
        return hang_up(fd);
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
}

int main(void)
{
    struct rlimit files = {MOST_DESCRIPTORS, MOST_DESCRIPTORS};
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(0);
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        listen_on(&ports[i]);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (peers[fd].listens)
                accept_all(fd);
            else if (peers[fd].habit == SILENT)
                hang_up(fd); /* only an end or an error is told of */
            else if (peers[fd].habit != NONE && events[i].events & EPOLLOUT)
                give(fd);
            else if (peers[fd].habit != NONE)
                take(fd);
        }
    }
}
