#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct name_value {
    const char *name;
    long value;
};

static const struct name_value limit_names[] = {
    {"NOFILE", RLIMIT_NOFILE}, {"CORE", RLIMIT_CORE},   {"FSIZE", RLIMIT_FSIZE},
    {"AS", RLIMIT_AS},         {"NPROC", RLIMIT_NPROC}, {"MEMLOCK", RLIMIT_MEMLOCK},
};
static const struct name_value namespace_names[] = {
    {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC},
    {"uts", CLONE_NEWUTS},
    {"mnt", CLONE_NEWNS},
};

_Noreturn void fail(int status, const char *format, ...)
{
    char line[PATH_MAX + 512] = "mayfly-launcher: ";
    size_t length = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    length = strlen(line);
    line[length++] = '\n';
    if (write(2, line, length) < 0)
        _exit(status);
    _exit(status);
}

uint64_t number_of(const char *option, const char *what, const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno || end == text || *end)
        fail(EXIT_CANNOT_RUN, "%s: %s is not a number: %s", option, what, text);
    return value;
}

void protect_from_signals(void)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGQUIT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_IGN);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "-1000", 5) != 5) /* not allowed: then as likely as others */
        errno = 0;
    close(fd);
}

static _Noreturn void fail_usage(const char *what, const char *value)
{
    fail(EXIT_CANNOT_RUN, "%s: %s", what, value);
}

static long number(const char *option, const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high)
        fail(EXIT_CANNOT_RUN, "%s takes a number from %ld to %ld, not \"%s\"", option, low, high, text);
    return value;
}

static bool lookup(const struct name_value *table, size_t count, const char *name, size_t length, long *value)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(table[i].name) != length || strncmp(table[i].name, name, length))
            continue;
        *value = table[i].value;
        return true;
    }
    return false;
}

/* NAME=VALUE sets both limits, NAME=SOFT:HARD each; "unlimited" is a value. */
static void parse_limit(struct plan *plan, const char *text)
{
    char part[32];
    long resource;
    size_t length = strcspn(text, "=");
    struct limit *limit = &plan->limits[plan->limit_count];
    if (plan->limit_count == MAX_LIMITS)
        fail_usage("too many --rlimit", text);
    if (text[length] != '=' ||
        !lookup(limit_names, sizeof limit_names / sizeof *limit_names, text, length, &resource))
        fail_usage("--rlimit takes NAME=VALUE with NOFILE, CORE, FSIZE, AS, NPROC or MEMLOCK, not", text);
    const char *at = text + length + 1;
    rlim_t values[2];
    int count = 0;
    do {
        size_t size = strcspn(at, ":");
        if (size >= sizeof part || count == 2)
            fail_usage("--rlimit takes VALUE or SOFT:HARD, not", text);
        memcpy(part, at, size);
        part[size] = 0;
        values[count++] =
            strcmp(part, "unlimited") ? (rlim_t)number("--rlimit", part, 0, LONG_MAX) : RLIM_INFINITY;
        at += size;
    } while (*at++ == ':');
    *limit = (struct limit){(int)resource, {values[0], values[count - 1]}, text};
    plan->limit_count++;
}

static void parse_namespaces(struct plan *plan, const char *text)
{
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        long flag;
        if (!lookup(namespace_names, sizeof namespace_names / sizeof *namespace_names, at, length, &flag))
            fail_usage("--unshare takes net, ipc, uts and mnt, not", text);
        plan->namespaces |= (int)flag;
        at += length;
        if (!*at)
            return;
    }
}

static void parse_groups(struct plan *plan, const char *text)
{
    char part[16];
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        if (length >= sizeof part || plan->group_count == MAX_GROUPS)
            fail_usage("--groups takes up to 32 numbers, not", text);
        memcpy(part, at, length);
        part[length] = 0;
        plan->groups[plan->group_count++] = (gid_t)number("--groups", part, 0, UINT_MAX - 1L);
        at += length;
        if (!*at)
            return;
    }
}

/* An option with a value; returns false if there is none of that name. */
static bool parse_option(struct plan *plan, const char *option, char *value)
{
    if (!strcmp(option, "--cgroup-procs")) {
        if (plan->cgroup_count == MAX_CGROUPS)
            fail_usage("too many --cgroup-procs", value);
        plan->cgroups[plan->cgroup_count++] = value;
    } else if (!strcmp(option, "--setenv")) {
        if (plan->variable_count == MAX_VARIABLES || !strchr(value, '=') || *value == '=')
            fail_usage("--setenv takes NAME=VALUE, at most 64 times, not", value);
        plan->variables[plan->variable_count++] = value;
    } else if (!strcmp(option, "--uid")) {
        plan->uid = number(option, value, 0, UINT_MAX - 1L);
    } else if (!strcmp(option, "--image")) {
        plan->image = (int)number(option, value, 0, INT_MAX);
    } else if (!strcmp(option, "--image-base")) {
        plan->image_base = (int)number(option, value, 0, INT_MAX);
    } else if (!strcmp(option, "--gid")) {
        plan->gid = number(option, value, 0, UINT_MAX - 1L);
    } else if (!strcmp(option, "--nice")) {
        plan->nice = (int)number(option, value, -20, 19);
        plan->has_nice = true;
    } else if (!strcmp(option, "--oom-score-adj")) {
        number(option, value, -1000, 1000);
        plan->oom_score_adj = value;
    } else if (!strcmp(option, "--groups")) {
        parse_groups(plan, value);
    } else if (!strcmp(option, "--rlimit")) {
        parse_limit(plan, value);
    } else if (!strcmp(option, "--unshare")) {
        parse_namespaces(plan, value);
    } else if (!strcmp(option, "--chdir")) {
        plan->directory = value;
    } else {
        return false;
    }
    return true;
}

void options_parse(struct plan *plan, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--merge-memory"))
            plan->merge_memory = true;
        else if (!strcmp(argv[i], "--no-huge-pages"))
            plan->no_huge_pages = true;
        else if (!strcmp(argv[i], "--clear-env"))
            plan->clear_env = true;
        else if (i + 1 < argc && parse_option(plan, argv[i], argv[i + 1]))
            i++;
        else
            fail_usage("unknown option, or one without its value", argv[i]);
    }
    if (plan->image >= 0 ? i < argc : i + 1 >= argc)
        fail(EXIT_CANNOT_RUN, "%s", plan->image >= 0 ? "--image and a program exclude each other" : "no program given: ... -- PROGRAM ARG...");
    if ((plan->uid < 0) != (plan->gid < 0))
        fail(EXIT_CANNOT_RUN, "--uid and --gid go together");
    if (plan->group_count && plan->uid < 0)
        fail(EXIT_CANNOT_RUN, "--groups needs --uid and --gid");
    plan->program = argv + i + 1;
}
