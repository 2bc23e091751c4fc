#include "deferred.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "session.h"

static struct {
    struct deferred_wait wait; /* ready NULL: not waiting */
    bool with_result;
    pid_t pid;
    uint32_t stream;
    deferred_next *next;
    int64_t deadline_ms;
} current;
static volatile uint64_t *shared_result;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int deferred_init(void)
{
    void *page = mmap(NULL, sizeof *shared_result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    shared_result = page;
    return 0;
}

static int start(uint32_t stream, deferred_work *work, void *argument)
{
    *shared_result = 0;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        _exit(-work(argument, shared_result));
    current.pid = pid;
    current.stream = stream;
    return DEFERRED;
}

int deferred_start(uint32_t stream, deferred_work *work, void *argument, bool with_result)
{
    current.with_result = with_result;
    current.next = NULL;
    return start(stream, work, argument);
}

int deferred_start_then(uint32_t stream, deferred_work *work, void *argument, deferred_next *next)
{
    current.with_result = false;
    current.next = next;
    return start(stream, work, argument);
}

int deferred_wait(uint32_t stream, const struct deferred_wait *wait)
{
    current.wait = *wait;
    current.stream = stream;
    current.deadline_ms = now_ms() + wait->limit_ms;
    return DEFERRED;
}

bool deferred_busy(void) { return current.wait.ready || current.pid; }

int deferred_timeout_ms(void)
{
    if (!current.wait.ready)
        return -1;
    int64_t left = current.deadline_ms - now_ms();
    if (current.wait.poll_ms > 0 && left > current.wait.poll_ms)
        left = current.wait.poll_ms;
    return left < 0 ? 0 : (int)left;
}

static void answer(deferred_next *next, int error, const void *result, size_t length)
{
    if (next)
        error = next(current.stream, error);
    if (error != DEFERRED)
        session_reply(current.stream, error, result, error ? 0 : length);
}

void deferred_check(void)
{
    if (!current.wait.ready)
        return;
    bool ready = current.wait.ready();
    if (!ready && now_ms() < current.deadline_ms)
        return;
    current.wait.ready = NULL;
    answer(current.wait.next, ready ? 0 : -ETIMEDOUT, NULL, 0);
}

void deferred_reaped(pid_t pid, int status)
{
    uint8_t result[8];
    if (!current.pid || pid != current.pid)
        return;
    current.pid = 0;
    int error = WIFEXITED(status) ? -WEXITSTATUS(status) : 0;
    if (WIFSIGNALED(status))
        error = -EIO;
    for (int i = 0; i < 8; i++)
        result[i] = (uint8_t)(*shared_result >> (8 * i));
    answer(current.next, error, result, current.with_result ? sizeof result : 0);
}
