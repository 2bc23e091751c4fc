#include "deferred.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "session.h"

#define FREEZE_LIMIT_MS 2000

static struct {
    bool freezing, with_result;
    pid_t pid;
    uint32_t stream;
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

int deferred_start(uint32_t stream, deferred_work *work, void *argument, bool with_result)
{
    *shared_result = 0;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        _exit(-work(argument, shared_result));
    current.pid = pid;
    current.stream = stream;
    current.with_result = with_result;
    return DEFERRED;
}

int deferred_wait_frozen(uint32_t stream)
{
    current.freezing = true;
    current.stream = stream;
    current.deadline_ms = now_ms() + FREEZE_LIMIT_MS;
    return DEFERRED;
}

bool deferred_busy(void) { return current.freezing || current.pid; }

int deferred_timeout_ms(void)
{
    if (!current.freezing)
        return -1;
    int64_t left = current.deadline_ms - now_ms();
    return left < 0 ? 0 : (int)left;
}

void deferred_check(void)
{
    if (!current.freezing)
        return;
    bool frozen = cgroup_is_frozen();
    if (!frozen && now_ms() < current.deadline_ms)
        return;
    current.freezing = false;
    session_reply(current.stream, frozen ? 0 : -ETIMEDOUT, NULL, 0);
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
    session_reply(current.stream, error, result, error || !current.with_result ? 0 : sizeof result);
}
