/* The survey of changes against trees that hold everything an overlay has, and of processes against this host's /proc. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "survey.h"
#include "test.h"

#define DEEPER 140 /* than the survey looks */

static char base[64], upper[80], lower[80];
static uint8_t printed[1 << 20];
static size_t printed_length;

static void make_file(const char *root, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

static void make_directory(const char *root, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    if (mkdir(path, 0755))
        abort();
}

static bool make_whiteout(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", upper, name);
    return !mknod(path, S_IFCHR, makedev(0, 0));
}

static bool make_opaque(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", upper, name);
    return !setxattr(path, "trusted.overlay.opaque", "y", 1, 0);
}

static void same_time(const char *name)
{
    const struct timespec times[2] = {{1000, 5}, {1000, 5}};
    char path[512];
    const char *const roots[] = {upper, lower};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", roots[i], name);
        utimensat(AT_FDCWD, path, times, 0);
    }
}

/* Runs a survey in a child with its output in a file, as the agent runs it with a pipe. */
static int survey(int (*run)(void))
{
    char path[80];
    snprintf(path, sizeof path, "%s/out", base);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (!freopen(path, "w", stdout))
            abort();
        int code = run();
        fflush(stdout);
        _exit(code);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    FILE *file = fopen(path, "r");
    printed_length = file ? fread(printed, 1, sizeof printed, file) : 0;
    if (file)
        fclose(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_changes(void) { return survey_changes(upper, lower); }

static uint32_t u32_at(size_t at)
{
    return printed[at] | (uint32_t)printed[at + 1] << 8 | (uint32_t)printed[at + 2] << 16 | (uint32_t)printed[at + 3] << 24;
}

/* The flags of a path in what was printed, or -1. *count is how many records there are. */
static int flags_of(const char *path, int *count)
{
    int flags = -1;
    size_t at = 4;
    for (*count = 0; at + 4 <= printed_length && u32_at(at); at += 4 + u32_at(at), ++*count) {
        size_t length = printed[at + 29] | (size_t)printed[at + 30] << 8;
        if (length == strlen(path) && !memcmp(printed + at + 31, path, length))
            flags = printed[at + 4];
    }
    CHECK(at + 8 == printed_length && u32_at(at + 4) == (uint32_t)*count);
    return flags;
}

static void begin(void)
{
    strcpy(base, "/tmp/survey-XXXXXX");
    if (!mkdtemp(base))
        abort();
    snprintf(upper, sizeof upper, "%s/upper", base);
    snprintf(lower, sizeof lower, "%s/lower", base);
    if (mkdir(upper, 0755) || mkdir(lower, 0755))
        abort();
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", base);
    if (system(command))
        abort();
}

static void nothing_changed_is_nothing_printed(void)
{
    int count;
    begin();
    make_file(lower, "file", "x");
    CHECK(survey(run_changes) == 0);
    CHECK(u32_at(0) == SURVEY_CHANGES_MAGIC);
    CHECK(flags_of("/file", &count) == -1 && count == 0);
    end();
}

static void each_entry_says_what_it_was(void)
{
    int count;
    begin();
    make_directory(lower, "etc");
    make_directory(upper, "etc");
    make_file(lower, "etc/changed", "1");
    make_file(upper, "etc/changed", "22");
    make_file(upper, "etc/a\nname \033[31m", "new");
    make_directory(upper, "new");
    make_file(upper, "new/below", "x");
    make_file(lower, "was-file", "x");
    make_directory(upper, "was-file");
    same_time("etc");
    CHECK(survey(run_changes) == 0);
    CHECK(flags_of("/etc", &count) ==
          (CHANGE_DIRECTORY | CHANGE_IN_IMAGE | CHANGE_DIRECTORY_THERE | CHANGE_SAME_OWNER | CHANGE_SAME_TIME));
    CHECK((flags_of("/etc/changed", &count) & ~CHANGE_SAME_TIME) == (CHANGE_IN_IMAGE | CHANGE_SAME_OWNER));
    CHECK(flags_of("/etc/a\nname \033[31m", &count) == 0);
    CHECK(flags_of("/new", &count) == CHANGE_DIRECTORY);
    CHECK(flags_of("/new/below", &count) == 0);
    CHECK((flags_of("/was-file", &count) & ~CHANGE_SAME_TIME) == (CHANGE_DIRECTORY | CHANGE_IN_IMAGE));
    CHECK(count == 6);
    end();
}

static void what_is_gone_is_told_once(void)
{
    int count;
    begin();
    make_file(lower, "gone", "x");
    make_directory(lower, "emptied");
    make_file(lower, "emptied/hidden", "x");
    make_file(lower, "emptied/again", "x");
    make_directory(upper, "emptied");
    make_file(upper, "emptied/again", "y");
    if (!make_whiteout("gone") || !make_whiteout("never-there") || !make_opaque("emptied")) {
        SKIP(what_is_gone_is_told_once, "no right to make whiteouts and trusted attributes here");
        end();
        return;
    }
    CHECK(survey(run_changes) == 0);
    CHECK(flags_of("/gone", &count) & CHANGE_DELETED);
    CHECK(flags_of("/never-there", &count) == -1);
    CHECK(flags_of("/emptied/hidden", &count) == (CHANGE_DELETED | CHANGE_IN_IMAGE));
    CHECK((flags_of("/emptied/again", &count) & (CHANGE_IN_IMAGE | CHANGE_DELETED)) == CHANGE_IN_IMAGE);
    CHECK(count == 4);
    end();
}

static void depth_has_a_bound(void)
{
    int count;
    char path[4 * DEEPER] = "";
    begin();
    int directory = open(upper, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < DEEPER; i++) {
        if (mkdirat(directory, "d", 0755))
            abort();
        int next = openat(directory, "d", O_RDONLY | O_DIRECTORY);
        close(directory);
        directory = next;
    }
    close(directory);
    CHECK(survey(run_changes) == 0);
    for (int i = 0; i < 100; i++)
        strcat(path, "/d");
    CHECK(flags_of(path, &count) == (CHANGE_DIRECTORY | CHANGE_CUT));
    CHECK(count == 100);
    end();
}

static void without_layers_it_fails(void)
{
    begin();
    strcat(lower, "/missing");
    CHECK(survey(run_changes) == 1);
    CHECK(printed_length == 0);
    end();
}

/* No process of a host is in a guest's group. */
static void processes_of_others_are_left_out(void)
{
    begin();
    CHECK(survey(survey_processes) == 0);
    CHECK(u32_at(0) == SURVEY_PROCESSES_MAGIC && u32_at(4) == (uint32_t)sysconf(_SC_CLK_TCK));
    CHECK(printed_length == 24 + 8 && u32_at(24) == 0 && u32_at(28) == 0);
    end();
}

int main(void)
{
    umask(0);
    RUN(nothing_changed_is_nothing_printed);
    RUN(each_entry_says_what_it_was);
    RUN(what_is_gone_is_told_once);
    RUN(depth_has_a_bound);
    RUN(without_layers_it_fails);
    RUN(processes_of_others_are_left_out);
    return test_summary("survey_test");
}
