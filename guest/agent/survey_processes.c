/* Processes of the workload, as /proc of the agent shows them. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "survey.h"
#include "survey_out.h"
#include "text.h"

#define WORKLOAD_LINE "0::/workload/"
#define FIRST_FIELD 3 /* of what follows the name in /proc/PID/stat, as proc(5) counts */

/* Fields of /proc/PID/stat behind the name, by their numbers in proc(5). */
enum { STATE = 3, PPID, PGRP, SESSION, TTY_NR, UTIME = 14, STIME, NICE = 19, THREADS, STARTTIME = 22, VSIZE, RSS, FIELDS };

struct process {
    pid_t pid;
    char name[64];
    size_t name_length;
    uint32_t uid;
    char state;
    long long fields[FIELDS];
    char command[4096];
    size_t command_length;
};

static int is_in_workload(int directory)
{
    char text[512];
    return text_read_at(directory, "cgroup", text, sizeof text) > 0 &&
           !strncmp(text, WORKLOAD_LINE, sizeof WORKLOAD_LINE - 1);
}

/* The name may contain anything, ")" too, but what follows it does not. */
static int read_stat(int directory, struct process *process)
{
    char text[1024];
    ssize_t length = text_read_at(directory, "stat", text, sizeof text);
    char *start = length > 0 ? memchr(text, '(', (size_t)length) : NULL;
    char *end = length > 0 ? memrchr(text, ')', (size_t)length) : NULL;
    if (!start || !end || end < start || end + 2 >= text + length)
        return -1;
    process->name_length = (size_t)(end - start - 1);
    if (process->name_length > sizeof process->name)
        process->name_length = sizeof process->name;
    memcpy(process->name, start + 1, process->name_length);
    process->state = end[2];
    char *at = end + 3;
    for (int field = FIRST_FIELD + 1; field < FIELDS; field++)
        process->fields[field] = strtoll(at, &at, 10);
    return 0;
}

/* The effective user, as ps shows it. */
static uint32_t read_uid(int directory)
{
    char text[2048];
    ssize_t length = text_read_at(directory, "status", text, sizeof text);
    char *line = length > 0 ? strstr(text, "\nUid:") : NULL; /* the kernel escapes the name above it */
    if (!line)
        return 0;
    strtoul(line + sizeof "\nUid:" - 1, &line, 10); /* the real one */
    return (uint32_t)strtoul(line, NULL, 10);
}

static size_t read_command(int directory, char *into, size_t size)
{
    int fd = openat(directory, "cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, into, size);
    close(fd);
    while (length > 0 && !into[length - 1])
        length--;
    return length > 0 ? (size_t)length : 0;
}

static int print_process(const struct process *process)
{
    struct survey_record record = {0};
    const long long *fields = process->fields;
    survey_u32(&record, (uint32_t)process->pid);
    survey_u32(&record, (uint32_t)fields[PPID]);
    survey_u32(&record, (uint32_t)fields[PGRP]);
    survey_u32(&record, (uint32_t)fields[SESSION]);
    survey_u32(&record, (uint32_t)fields[TTY_NR]);
    survey_u32(&record, process->uid);
    survey_u32(&record, (uint32_t)fields[NICE]);
    survey_u32(&record, (uint32_t)fields[THREADS]);
    survey_u64(&record, (uint64_t)(fields[UTIME] + fields[STIME]));
    survey_u64(&record, (uint64_t)fields[STARTTIME]);
    survey_u64(&record, (uint64_t)fields[VSIZE]);
    survey_u64(&record, (uint64_t)fields[RSS] * (uint64_t)sysconf(_SC_PAGESIZE));
    survey_u8(&record, (uint8_t)process->state);
    survey_bytes(&record, process->name, process->name_length);
    survey_bytes(&record, process->command, process->command_length);
    return survey_print(&record);
}

/* One that has ended meanwhile is none. */
static int survey_process(int proc, const char *name)
{
    struct process process = {.pid = (pid_t)atoi(name)};
    int directory = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
    if (directory < 0)
        return 0;
    if (process.pid != getpid() && is_in_workload(directory) && !read_stat(directory, &process)) {
        process.uid = read_uid(directory);
        process.command_length = read_command(directory, process.command, sizeof process.command);
        error = print_process(&process);
    }
    close(directory);
    return error;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int survey_processes(void)
{
    struct survey_record head = {0};
    DIR *proc = opendir("/proc");
    if (!proc)
        return 1;
    survey_u32(&head, SURVEY_PROCESSES_MAGIC);
    survey_u32(&head, (uint32_t)sysconf(_SC_CLK_TCK));
    survey_u64(&head, clock_ns(CLOCK_REALTIME));
    survey_u64(&head, clock_ns(CLOCK_BOOTTIME));
    int error = survey_print_raw(&head);
    for (struct dirent *entry; !error && (entry = readdir(proc));)
        if (isdigit((unsigned char)entry->d_name[0]))
            error = survey_process(dirfd(proc), entry->d_name);
    closedir(proc);
    return error || survey_finish() ? 1 : 0;
}
