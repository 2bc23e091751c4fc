/*
 * For tests of process images: a program with memory, a thread, an event, a file and a signal handler of its own, that waits on its standard input for a
 * byte, and then tells on its output what of it is as it was. Its argument is a file that it maps privately, and of which it has changed a page.
 */
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAP_BYTES (3 << 20)
#define DEEP 2000
#define PAGE 4096

static atomic_ulong counter;
static volatile sig_atomic_t handled;
static _Thread_local int mine;
static volatile int changed = 1;

static void *count(void *unused)
{
    (void)unused;
    for (mine = 7; mine == 7;) {
        counter++;
        usleep(1000);
    }
    return NULL;
}

static void handle(int number)
{
    handled = number;
}

/* Needs more of the stack than there was. */
static int deep(int depth)
{
    volatile char some[1024];
    memset((void *)some, depth, sizeof some);
    return depth ? deep(depth - 1) + (some[5] == (char)depth) : 0;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char byte;
    uint64_t happened = 0;
    int file = argc > 1 ? open(argv[1], O_RDONLY) : -1, event = eventfd(7, EFD_NONBLOCK);
    struct stat status;
    if (file < 0 || event < 0 || fstat(file, &status))
        return 1;
    char *mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    char *heap = malloc(HEAP_BYTES), *small = malloc(100);
    if (mapped == MAP_FAILED || !heap || !small || fesetround(FE_UPWARD))
        return 1;
    mapped[2 * PAGE] = 'w';
    for (int i = 0; i < HEAP_BYTES; i++)
        heap[i] = (char)(i * 31);
    strcpy(small, "small");
    changed = 2;
    mine = 8;
    signal(SIGUSR1, handle);
    if (pthread_create(&thread, NULL, count, NULL) || read(STDIN_FILENO, &byte, 1) != 1)
        return 2;
    int good = changed == 2 && mine == 8 && !strcmp(small, "small");
    for (int i = 0; i < HEAP_BYTES; i++)
        good &= heap[i] == (char)(i * 31);
    char *more = malloc(200 << 10);
    memset(more, 1, 200 << 10);
    if (read(event, &happened, sizeof happened) != sizeof happened)
        happened = 0;
    raise(SIGUSR1);
    unsigned long before = counter;
    usleep(20000);
    dprintf(STDOUT_FILENO, "%c: memory %s, data %c%c%c, %lu times, rounds %s, signal %d, %d deep, its thread %s, user %u\n", byte, good ? "good" : "bad", mapped[0],
            mapped[2 * PAGE], mapped[3 * PAGE], (unsigned long)happened, fegetround() == FE_UPWARD ? "up" : "otherwise", (int)handled, deep(DEEP),
            counter > before ? "counts" : "stands still", (unsigned)getuid());
    return 3;
}
