/*
 * mayfly-launcher: prepares a process between fork and exec, where the daemon has no place to run code, and becomes
 * the program: joins cgroups, sets limits, leaves namespaces and privileges behind. The pid stays the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "discard.h"
#include "image.h"
#include "options.h"
#include "parent.h"

#define SET_MEMORY_MERGE 67 /* PR_SET_MEMORY_MERGE, Linux 6.4 */

static void write_file(const char *path, const char *text, const char *what)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(EXIT_CANNOT_RUN, "cannot %s %s: %s", what, path, strerror(errno));
    close(fd);
}

static void join_cgroups(const struct plan *plan)
{
    for (size_t i = 0; i < plan->cgroup_count; i++)
        write_file(plan->cgroups[i], "0", "join cgroup");
}

static void set_limits(const struct plan *plan)
{
    for (size_t i = 0; i < plan->limit_count; i++)
        if (setrlimit(plan->limits[i].resource, &plan->limits[i].values))
            fail(EXIT_CANNOT_RUN, "cannot set limit %s: %s", plan->limits[i].text, strerror(errno));
    if (plan->has_nice && setpriority(PRIO_PROCESS, 0, plan->nice))
        fail(EXIT_CANNOT_RUN, "cannot set nice to %d: %s", plan->nice, strerror(errno));
    if (plan->oom_score_adj)
        write_file("/proc/self/oom_score_adj", plan->oom_score_adj, "write");
}

static void enter_namespaces(const struct plan *plan)
{
    if (plan->namespaces && unshare(plan->namespaces))
        fail(EXIT_CANNOT_RUN, "cannot make namespaces: %s", strerror(errno));
    /* What is mounted in there stays in there. */
    if ((plan->namespaces & CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        fail(EXIT_CANNOT_RUN, "cannot make the mount namespace a slave of the host's: %s", strerror(errno));
}

static void drop_privileges(const struct plan *plan)
{
    if (plan->merge_memory && prctl(SET_MEMORY_MERGE, 1, 0, 0, 0))
        fail(EXIT_CANNOT_RUN, "cannot have memory merged (Linux 6.4 with CONFIG_KSM can): %s", strerror(errno));
    if (plan->no_huge_pages && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
        fail(EXIT_CANNOT_RUN, "cannot do without huge pages: %s", strerror(errno));
    if (plan->uid >= 0) {
        if (setgroups(plan->group_count, plan->groups))
            fail(EXIT_CANNOT_RUN, "cannot set %zu groups: %s", plan->group_count, strerror(errno));
        if (setresgid((gid_t)plan->gid, (gid_t)plan->gid, (gid_t)plan->gid))
            fail(EXIT_CANNOT_RUN, "cannot become gid %ld: %s", plan->gid, strerror(errno));
        if (setresuid((uid_t)plan->uid, (uid_t)plan->uid, (uid_t)plan->uid))
            fail(EXIT_CANNOT_RUN, "cannot become uid %ld: %s", plan->uid, strerror(errno));
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(EXIT_CANNOT_RUN, "cannot set no_new_privs: %s", strerror(errno));
}

static void set_environment(const struct plan *plan)
{
    if (plan->clear_env)
        clearenv();
    for (size_t i = 0; i < plan->variable_count; i++)
        putenv(plan->variables[i]);
}

/* A runtime that ignores or blocks signals passes that on; the program starts as from a shell. */
static void reset_signals(void)
{
    static const unsigned long standard[4]; /* the kernel's sigaction: the C library keeps some signals for itself */
    sigset_t none;
    for (int signal = 1; signal < 65; signal++)
        syscall(SYS_rt_sigaction, signal, standard, NULL, sizeof(long));
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int main(int argc, char **argv)
{
    struct plan plan = {.uid = -1, .gid = -1, .image = -1, .image_base = -1};
    if (argc > 1 && !strcmp(argv[1], "--discard"))
        discard_run(argv + 2);
    if (argc > 1 && !strcmp(argv[1], "--parent"))
        parent_run(argv + 2);
    if (argc > 1 && !strcmp(argv[1], "--fork"))
        fork_run(argv + 2);
    options_parse(&plan, argc, argv);
    join_cgroups(&plan);
    set_limits(&plan);
    enter_namespaces(&plan);
    if (plan.directory && chdir(plan.directory))
        fail(EXIT_CANNOT_RUN, "cannot change directory to %s: %s", plan.directory, strerror(errno));
    drop_privileges(&plan);
    set_environment(&plan);
    reset_signals();
    if (plan.image >= 0)
        image_become(plan.image, plan.image_base);
    execvp(plan.program[0], plan.program);
    bool missing = errno == ENOENT || errno == ENOTDIR;
    fail(missing ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN, "cannot run %s: %s", plan.program[0], strerror(errno));
}
