/*
 * The service of the scenario `ports`, the same program behind both networks: small HTTP answers on one port, bytes in bulk on
 * another. One process, epoll, no memory after start, so that the guest's part of a figure is the network's, not the server's.
 *
 * server HTTP-PORT BYTES-PORT
 *   HTTP: any request without a body; the connection is kept unless the request says `connection: close`.
 *   bytes: `get N\n` is answered with N bytes, `put N\n` and N bytes with one.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_DESCRIPTORS 1024
#define LINE_BYTES 512
#define CHUNK_BYTES 65536
#define EVENTS_AT_ONCE 64
#define BACKLOG 1024

static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 14\r\n\r\nfrom a guest.\n";

enum kind { NONE, HTTP_LISTENER, BYTES_LISTENER, HTTP, BYTES };

struct peer {
    enum kind kind;
    char line[LINE_BYTES];
    size_t length;
    long long to_send, to_take;
};

static struct peer peers[MOST_DESCRIPTORS];
static char chunk[CHUNK_BYTES];
static int epoll_fd;

static void watch(int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        abort();
}

static void listen_on(int port, enum kind kind)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || fd >= MOST_DESCRIPTORS || bind(fd, (struct sockaddr *)&any, sizeof any) || listen(fd, BACKLOG))
        exit(1);
    peers[fd].kind = kind;
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void accept_all(int listener)
{
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST_DESCRIPTORS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        peers[fd] = (struct peer){.kind = peers[listener].kind == HTTP_LISTENER ? HTTP : BYTES};
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void hang_up(int fd)
{
    peers[fd].kind = NONE;
    close(fd);
}

static void serve_http(int fd)
{
    struct peer *p = &peers[fd];
    ssize_t n = read(fd, p->line + p->length, sizeof p->line - 1 - p->length);
    if (n < 0 && errno == EAGAIN)
        return;
    p->length += n > 0 ? (size_t)n : 0;
    p->line[p->length] = 0;
    if (n <= 0 || (p->length == sizeof p->line - 1 && !strstr(p->line, "\r\n\r\n")))
        return hang_up(fd);
    if (!strstr(p->line, "\r\n\r\n"))
        return;
    p->length = 0;
    bool last = strstr(p->line, "connection: close");
    if (write(fd, answer, sizeof answer - 1) != sizeof answer - 1 || last)
        hang_up(fd);
}

/* The order of a stream of bytes: its first line. */
static bool take_order(int fd)
{
    struct peer *p = &peers[fd];
    while (p->length < sizeof p->line - 1) {
        ssize_t n = read(fd, p->line + p->length, 1);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n <= 0)
            break;
        if (p->line[p->length++] != '\n')
            continue;
        p->line[p->length] = 0;
        long long count = atoll(p->line + 4);
        if (!strncmp(p->line, "get ", 4))
            p->to_send = count;
        else
            p->to_take = count;
        return true;
    }
    hang_up(fd);
    return false;
}

static void serve_bytes(int fd)
{
    struct peer *p = &peers[fd];
    if (!p->to_send && !p->to_take && !take_order(fd))
        return;
    while (p->to_take > 0) {
        ssize_t n = read(fd, chunk, p->to_take < CHUNK_BYTES ? (size_t)p->to_take : CHUNK_BYTES);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            return hang_up(fd);
        p->to_take -= n;
        if (!p->to_take)
            p->to_send = 1;
    }
    while (p->to_send > 0) {
        ssize_t n = write(fd, chunk, p->to_send < CHUNK_BYTES ? (size_t)p->to_send : CHUNK_BYTES);
        if (n < 0 && errno == EAGAIN)
            return watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
        if (n <= 0)
            return hang_up(fd);
        p->to_send -= n;
    }
    hang_up(fd);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    memset(chunk, 'x', sizeof chunk);
    epoll_fd = epoll_create1(0);
    listen_on(atoi(argv[1]), HTTP_LISTENER);
    listen_on(atoi(argv[2]), BYTES_LISTENER);
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            switch (peers[fd].kind) {
            case HTTP_LISTENER:
            case BYTES_LISTENER:
                accept_all(fd);
                break;
            case HTTP:
                serve_http(fd);
                break;
            case BYTES:
                serve_bytes(fd);
                break;
            case NONE:
                break;
            }
        }
    }
}
