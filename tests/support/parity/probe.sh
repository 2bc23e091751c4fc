#!/bin/sh
# What a process of a container finds: one line `SECTION<tab>NAME<tab>VALUE` for each thing, for sections named as arguments (all).
# With a terminal, lines end with CR LF.
say() { printf '%s\t%s\t%s\n' "$1" "$2" "$3"; }

# Before the shell starts anything.
pids=
for directory in /proc/[0-9]*; do pids="$pids ${directory#/proc/}"; done
descriptors=
for descriptor in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$descriptor ] || descriptors="$descriptors $descriptor"; done
environment=$(env | sort)
umask=$(umask)

process() {
  n=0
  for word in "$0" "$@"; do
    say process "argument $n" "$word"
    n=$((n + 1))
  done
  say process pid $$
  say process 'arguments of pid 1' "$(tr '\0' ' ' </proc/1/cmdline)"
  say process directory "$(pwd)"
  say process umask "$umask"
  say process uid "$(id -u)"
  say process gid "$(id -g)"
  say process groups "$(id -G | tr ' ' '\n' | sort -n | tr '\n' ' ')"
  while read -r name value; do
    case $name in
      Uid: | Gid: | Groups: | Cap* | NoNewPrivs: | Seccomp: | SigBlk: | SigIgn:) say status "${name%:}" "$value" ;;
    esac
  done </proc/$$/status
  # Process group, session, terminal, nice value.
  stat=$(sed 's/.*) //' /proc/$$/stat)
  # shellcheck disable=SC2086
  set -- $stat
  say process 'process group' "$3"
  say process session "$4"
  [ "$5" = 0 ] && say process 'controlling terminal' no || say process 'controlling terminal' yes
  say process nice "${17}"
  say process 'oom_score_adj' "$(cat /proc/$$/oom_score_adj)"
  say process 'open descriptors' "$descriptors"
  say process processes "$pids"
}

environment() {
  printf '%s\n' "$environment" | while IFS= read -r line; do say environment "${line%%=*}" "${line#*=}"; done
}

limits() {
  sed -n '2,$p' /proc/$$/limits | sed 's/  \+/\t/g' | while IFS='	' read -r name soft hard _; do say limits "$name" "$soft $hard"; done
}

# Without what comes of the kernel's version; the size is a thing of its own.
mounts() {
  while read -r _ target type options _; do
    say mounts "$target" "$type $(printf '%s' "$options" | tr ',' '\n' | grep -v -e '^size=' -e '^inode64$' -e '^relatime$' | sort | tr '\n' ',')"
    say mounts "$target size" "$(printf '%s' "$options" | tr ',' '\n' | sed -n 's/^size=//p')"
  done </proc/self/mounts
}

# What can be read there: nothing (masked, or not there), or something.
masked() {
  for path in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi \
    /proc/timer_list /proc/timer_stats /sys/dev/block /sys/devices/virtual/powercap /sys/firmware /sys/fs/selinux; do
    if [ -d "$path" ]; then
      found=$(find "$path" -mindepth 1 -maxdepth 1 2>/dev/null | head -n 1)
    else
      found=$(head -c 1 "$path" 2>/dev/null | wc -c | sed s/^0$//)
    fi
    [ -n "$found" ] && say masked "$path" 'can be read' || say masked "$path" nothing
  done
}

# Whether it could be opened for writing.
writable() {
  for path in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/self/oom_score_adj \
    /sys/kernel/mm/ksm/run /dev/null /dev/shm/new /dev/mqueue/new /tmp/new /new /etc/new /srv/new; do
    if [ ! -e "$path" ] && case $path in /proc/* | /sys/*) true ;; *) false ;; esac then
      say writable "$path" no
    elif (: >>"$path") 2>/dev/null; then
      say writable "$path" yes
    else
      say writable "$path" no
    fi
  done
}

devices() {
  for path in /dev/* /dev/pts/ptmx; do
    case $path in /dev/console) continue ;; esac
    if [ -L "$path" ]; then
      say devices "$path" "-> $(readlink "$path")"
    else
      say devices "$path" "$(stat -c '%F %t,%T %a %u %g' "$path")"
    fi
  done
}

network() {
  say network hostname "$(hostname)"
  say network domainname "$(cat /proc/sys/kernel/domainname)"
  say network /etc/hostname "$(cat /etc/hostname)"
  say network 'localhost in /etc/hosts' "$(grep -c '^127\.0\.0\.1[[:space:]].*localhost' /etc/hosts)"
  say network 'own name in /etc/hosts' "$(grep -q "[[:space:]]$(hostname)\([[:space:]]\|\$\)" /etc/hosts && echo yes || echo no)"
  say network /etc/resolv.conf "$([ -f /etc/resolv.conf ] && echo there || echo missing)"
  say network interfaces "$(ls /sys/class/net | sort | tr '\n' ' ')"
  say network loopback "$(ip addr show lo | sed -n 's/.*inet6* \([^ ]*\).*/\1/p' | tr '\n' ' ')"
  say network ip_unprivileged_port_start "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)"
  say network ping_group_range "$(cat /proc/sys/net/ipv4/ping_group_range)"
}

terminal() {
  for fd in 0 1 2; do [ -t $fd ] && say terminal $fd yes || say terminal $fd no; done
  say terminal name "$(tty)"
  say terminal /dev/console "$([ -e /dev/console ] && stat -c '%F' /dev/console || echo missing)"
  if [ -t 0 ]; then
    say terminal size "$(stty size 2>/dev/null)"
    say terminal modes "$(stty -a 2>/dev/null | grep -o -e '-*\(icanon\|echo\|isig\|opost\|onlcr\|icrnl\|ixon\)\b' | tr '\n' ' ')"
  fi
}

for section in ${SECTIONS:-process environment limits mounts masked writable devices network terminal}; do
  $section "$@"
done
