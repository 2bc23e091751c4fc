#!/bin/sh
# Runs mayfly-launcher through its options. What needs root is skipped, and said so, without it.
set -u
launcher=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0

# check NAME STATUS PATTERN COMMAND...: the exit status and a pattern in what it printed (both streams).
check() {
    name=$1 status=$2 pattern=$3
    shift 3
    output=$("$@" 2>&1)
    got=$?
    if [ "$got" = "$status" ] && printf '%s\n' "$output" | grep -Eq -- "$pattern"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s: status %s (expected %s), output:\n%s\n' "$name" "$got" "$status" "$output"
    fi
}

skip() {
    skipped=$((skipped + 1))
    printf 'skipped %s: %s\n' "$1" "$2"
}

check 'runs the program' 3 '^a b c$' "$launcher" -- sh -c 'echo a b "$1"; exit 3' sh c
check 'keeps the pid' 0 '^same$' sh -c 'exec "$0" -- sh -c "test \$\$ = $$ && echo same"' "$launcher"
check 'program not found' 127 'cannot run /nowhere/program: No such file or directory' "$launcher" -- /nowhere/program
check 'program not executable' 126 'cannot run /etc/passwd: Permission denied' "$launcher" -- /etc/passwd
check 'no program' 126 'no program given' "$launcher" --merge-memory
check 'discard without its words' 126 'takes PID START_TIME ADDRESS BYTES FILE' "$launcher" --discard 1 2
check 'discard of a process that is another' 126 'cannot look at process' "$launcher" --discard $$ 1 4096 0 /dev/null
check 'discard of another size' 126 'has not the size' "$launcher" --discard $$ 1 4096 4096 /dev/null
check 'parent without its words' 126 'takes PID START_TIME' "$launcher" --parent 1
check 'fork without its words' 126 '--fork takes FIRST_UID UIDS' "$launcher" --fork 1
check 'parent that is another process' 127 'cannot look at process' "$launcher" --parent $$ 1 4242 2
check 'unknown option' 126 'unknown option.*--frobnicate' "$launcher" --frobnicate 1 -- true
check 'no separator' 126 'unknown option' "$launcher" true
check 'bad number' 126 '--uid takes a number from 0 to .*, not "x"' "$launcher" --uid x --gid 1 -- true
check 'uid alone' 126 'uid and --gid go together' "$launcher" --uid 1 -- true
check 'no such cgroup' 126 '^mayfly-launcher: cannot join cgroup /nowhere/cgroup.procs: No such file' \
    "$launcher" --cgroup-procs /nowhere/cgroup.procs -- true
: >"$scratch/one"
: >"$scratch/two"
check 'every cgroup' 0 '^0 0$' "$launcher" --cgroup-procs "$scratch/one" --cgroup-procs "$scratch/two" -- \
    sh -c "echo \$(cat $scratch/one) \$(cat $scratch/two)"
check 'limit' 0 '^200 200$' "$launcher" --rlimit NOFILE=200 -- sh -c 'echo $(ulimit -n) $(ulimit -Hn)'
check 'soft and hard limit' 0 '^100 200$' "$launcher" --rlimit NOFILE=100:200 -- \
    sh -c 'echo $(ulimit -n) $(ulimit -Hn)'
check 'several limits' 0 '^0 64$' "$launcher" --rlimit CORE=0 --rlimit FSIZE=32768 -- \
    sh -c 'echo $(ulimit -c) $(ulimit -f)'
check 'unlimited' 0 'Max file size +unlimited' "$launcher" --rlimit FSIZE=unlimited -- cat /proc/self/limits
check 'unknown limit' 126 'not: COFFEE=1' "$launcher" --rlimit COFFEE=1 -- true
check 'malformed limit' 126 'rlimit' "$launcher" --rlimit NOFILE=1:2:3 -- true
check 'no_new_privs' 0 '^NoNewPrivs:[[:space:]]1$' "$launcher" -- cat /proc/self/status
check 'merge memory, wherever it runs' 0 '' "$launcher" --merge-memory -- true
check 'no huge pages' 0 'THP_enabled:	0' "$launcher" --no-huge-pages -- grep THP_enabled /proc/self/status
check 'environment' 0 '^kept new-value$' env KEPT=kept OLD=old-value "$launcher" --setenv OLD=new-value -- \
    sh -c 'echo $KEPT $OLD'
check 'empty environment' 0 '^ONLY=this$' env LOST=lost "$launcher" --clear-env --setenv ONLY=this -- /usr/bin/env
check 'malformed variable' 126 'setenv takes NAME=VALUE' "$launcher" --setenv NAME -- true
check 'directory' 0 "^$scratch\$" "$launcher" --chdir "$scratch" -- pwd
check 'no such directory' 126 'cannot change directory to /nowhere: No such file' "$launcher" --chdir /nowhere -- true
check 'niceness' 0 '^7$' "$launcher" --nice 7 -- nice
check 'inherited descriptors' 0 '^through$' sh -c 'exec 7>&1; exec "$0" -- sh -c "echo through >&7"' "$launcher"
check 'signals reset' 0 '^0000000000000000 0000000000000000$' sh -c \
    'trap "" PIPE INT TERM USR1; exec "$0" -- awk "/^SigBlk|^SigIgn/ {printf \"%s%s\", n++ ? \" \" : \"\", \$2} END {print \"\"}" /proc/self/status' "$launcher"
check 'raises its own OOM score' 0 '^500$' "$launcher" --oom-score-adj 500 -- cat /proc/self/oom_score_adj
check 'unknown namespace' 126 'unshare takes net, ipc, uts and mnt' "$launcher" --unshare pid -- true

if [ "$(id -u)" = 0 ]; then
    check 'user and groups' 0 '^4242 4243 7,8,4243$' "$launcher" --uid 4242 --gid 4243 --groups 7,8 -- \
        awk '/^(Uid|Gid):/ {printf "%s ", $3} /^Groups:/ {print $2 "," $3 ",4243"}' /proc/self/status
    check 'drops all groups' 0 '^Groups:[[:space:]]*$' "$launcher" --uid 4242 --gid 4243 -- cat /proc/self/status
    check 'drops capabilities' 0 '^CapEff:[[:space:]]0+$' "$launcher" --uid 4242 --gid 4243 -- cat /proc/self/status
    if "$launcher" --unshare net -- true 2>/dev/null; then
        check 'network namespace' 0 '^1$' "$launcher" --unshare net,ipc,uts,mnt -- sh -c 'grep -c : /proc/net/dev'
    else
        skip 'network namespace' 'this kernel or container allows none'
    fi
else
    skip 'user, groups, capabilities, namespaces' 'not root'
fi

printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
