#include "init.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

_Noreturn void init_run(const char *child)
{
    pid_t main_pid = child ? atoi(child) : 0;
    sigset_t all;
    sigfillset(&all);
    prctl(PR_SET_NAME, INIT_NAME);
    for (;;) {
        int status;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == main_pid)
                _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        int signal = sigwaitinfo(&all, NULL);
        if (signal > 0 && signal != SIGCHLD && main_pid)
            kill(main_pid, signal);
    }
}
