/** All commands: a name, what it does, and how to load it. Nothing of a command is loaded before it is called. */
import type { Command, CommandEntry } from "./specification.ts";

/** A function that loads a module and takes its command. */
const lazy = (load: () => Promise<{ command: Command }>) => () => load().then((module) => module.command);

const VM_COMMANDS: readonly CommandEntry[] = [
  { name: "run", summary: "Start a VM and run a command in it", load: lazy(() => import("./commands/run.ts")) },
  { name: "exec", summary: "Run a command in a running VM", load: lazy(() => import("./commands/exec.ts")) },
  { name: "ps", summary: "List VMs", aliases: ["ls"], load: lazy(() => import("./commands/ps.ts")) },
  { name: "attach", summary: "Connect to a VM's main process", load: lazy(() => import("./commands/attach.ts")) },
  { name: "logs", summary: "Show the output of a VM's main process", load: lazy(() => import("./commands/logs.ts")) },
  { name: "kill", summary: "Send a signal to the main process of VMs", load: lazy(() => import("./commands/kill.ts")) },
  { name: "stop", summary: "End VMs, gently first", load: lazy(() => import("./commands/stop.ts")) },
  { name: "rm", summary: "Remove VMs and their logs", load: lazy(() => import("./commands/rm.ts")) },
  {
    name: "wait",
    summary: "Wait for VMs to end, and print their exit codes",
    load: lazy(() => import("./commands/wait.ts")),
  },
  {
    name: "inspect",
    summary: "Show all that is known of VMs or images",
    load: lazy(() => import("./commands/inspect.ts")),
  },
  { name: "top", summary: "Show the processes of a VM", load: lazy(() => import("./commands/top.ts")) },
  { name: "port", summary: "Show the published ports of a VM", load: lazy(() => import("./commands/port.ts")) },
  {
    name: "diff",
    summary: "Show what a VM has changed of its image",
    load: lazy(() => import("./commands/diff.ts")),
  },
  { name: "stats", summary: "Show what VMs use, live", load: lazy(() => import("./commands/stats.ts")) },
  {
    name: "refresh",
    summary: "Give memory that VMs do not use back to the host",
    load: lazy(() => import("./commands/refresh.ts")),
  },
  { name: "cp", summary: "Copy files into or out of a VM", load: lazy(() => import("./commands/cp.ts")) },
];

/** What keeps states of VMs and makes more of them. */
const STATE_COMMANDS: readonly CommandEntry[] = [
  { name: "fork", summary: "Start VMs from a running one", load: lazy(() => import("./commands/fork.ts")) },
  {
    name: "checkpoint",
    summary: "Write a VM's state into a snapshot",
    load: lazy(() => import("./commands/checkpoint.ts")),
  },
  {
    name: "suspend",
    summary: "Put VMs away until they are wanted",
    load: lazy(() => import("./commands/suspend.ts")),
  },
  { name: "resume", summary: "Bring suspended VMs back", load: lazy(() => import("./commands/resume.ts")) },
  {
    name: "restore",
    summary: "Bring a snapshot's VM back as it was",
    load: lazy(() => import("./commands/restore.ts")),
  },
  { name: "tree", summary: "Draw who came from whom", load: lazy(() => import("./commands/tree.ts")) },
];

const SNAPSHOT_COMMANDS: readonly CommandEntry[] = [
  { name: "ls", summary: "List snapshots", aliases: ["list"], load: lazy(() => import("./commands/snapshot-ls.ts")) },
  {
    name: "inspect",
    summary: "Show all that is known of snapshots",
    load: lazy(() => import("./commands/snapshot-inspect.ts")),
  },
  { name: "rm", summary: "Remove snapshots", load: lazy(() => import("./commands/snapshot-rm.ts")) },
  { name: "prune", summary: "Remove unused snapshots", load: lazy(() => import("./commands/snapshot-prune.ts")) },
  {
    name: "verify",
    summary: "Check snapshots against their checksums",
    load: lazy(() => import("./commands/snapshot-verify.ts")),
  },
  { name: "diff", summary: "Show the pages that differ", load: lazy(() => import("./commands/snapshot-diff.ts")) },
  {
    name: "export",
    summary: "Write a snapshot into a file",
    load: lazy(() => import("./commands/snapshot-export.ts")),
  },
  {
    name: "import",
    summary: "Take in a file that export wrote",
    load: lazy(() => import("./commands/snapshot-import.ts")),
  },
  {
    name: "promote",
    summary: "Make a template of a snapshot",
    load: lazy(() => import("./commands/snapshot-promote.ts")),
  },
];

/** Docker's words for images, which stand on their own and below `image`. */
const COMMON_IMAGE_COMMANDS = {
  pull: { summary: "Get an image from a registry", load: lazy(() => import("./commands/image-pull.ts")) },
  load: { summary: "Load images from an archive or OCI layout", load: lazy(() => import("./commands/image-load.ts")) },
  build: { summary: "Build an image from a Dockerfile", load: lazy(() => import("./commands/image-build.ts")) },
  list: { summary: "List images", load: lazy(() => import("./commands/image-ls.ts")) },
  tag: { summary: "Give an image one more name", load: lazy(() => import("./commands/image-tag.ts")) },
  remove: { summary: "Remove images", load: lazy(() => import("./commands/image-rm.ts")) },
  prune: { summary: "Remove images that nobody needs", load: lazy(() => import("./commands/image-prune.ts")) },
} as const;

const IMAGE_COMMANDS: readonly CommandEntry[] = [
  { name: "pull", ...COMMON_IMAGE_COMMANDS.pull },
  { name: "load", ...COMMON_IMAGE_COMMANDS.load },
  { name: "build", ...COMMON_IMAGE_COMMANDS.build },
  { name: "import", summary: "Import a root file system", load: lazy(() => import("./commands/image-import.ts")) },
  { name: "ls", aliases: ["list"], ...COMMON_IMAGE_COMMANDS.list },
  {
    name: "inspect",
    summary: "Show all that is known of images",
    load: lazy(() => import("./commands/image-inspect.ts")),
  },
  { name: "tag", ...COMMON_IMAGE_COMMANDS.tag },
  { name: "rm", aliases: ["remove"], ...COMMON_IMAGE_COMMANDS.remove },
  { name: "prune", ...COMMON_IMAGE_COMMANDS.prune },
];

const TEMPLATE_COMMANDS: readonly CommandEntry[] = [
  {
    name: "build",
    summary: "Build a template for a size of VM, or of an application",
    load: lazy(() => import("./commands/template-build.ts")),
  },
  {
    name: "pool",
    summary: "Set how many clones of a template are kept prepared",
    load: lazy(() => import("./commands/template-pool.ts")),
  },
  { name: "ls", summary: "List templates", aliases: ["list"], load: lazy(() => import("./commands/template-ls.ts")) },
  {
    name: "inspect",
    summary: "Show all that is known of templates",
    load: lazy(() => import("./commands/template-inspect.ts")),
  },
  {
    name: "verify",
    summary: "Check templates against their manifests",
    load: lazy(() => import("./commands/template-verify.ts")),
  },
  { name: "rm", summary: "Remove templates", load: lazy(() => import("./commands/template-rm.ts")) },
];

const VOLUME_COMMANDS: readonly CommandEntry[] = [
  { name: "create", summary: "Make a volume", load: lazy(() => import("./commands/volume-create.ts")) },
  { name: "ls", summary: "List volumes", aliases: ["list"], load: lazy(() => import("./commands/volume-ls.ts")) },
  {
    name: "inspect",
    summary: "Show all that is known of volumes",
    load: lazy(() => import("./commands/volume-inspect.ts")),
  },
  { name: "rm", summary: "Remove volumes", load: lazy(() => import("./commands/volume-rm.ts")) },
  { name: "resize", summary: "Make a volume larger", load: lazy(() => import("./commands/volume-resize.ts")) },
  { name: "prune", summary: "Remove unused volumes", load: lazy(() => import("./commands/volume-prune.ts")) },
];

const QEMU_COMMANDS: readonly CommandEntry[] = [
  {
    name: "build",
    summary: "Build a lean QEMU from Debian's sources",
    load: lazy(() => import("./commands/qemu-build.ts")),
  },
  { name: "ls", summary: "List QEMUs", aliases: ["list"], load: lazy(() => import("./commands/qemu-ls.ts")) },
  { name: "use", summary: "Choose the QEMU of new VMs", load: lazy(() => import("./commands/qemu-use.ts")) },
  { name: "rm", summary: "Remove lean QEMUs", load: lazy(() => import("./commands/qemu-rm.ts")) },
];

const KERNEL_COMMANDS: readonly CommandEntry[] = [
  {
    name: "build",
    summary: "Build the minimal guest kernel from Debian's sources",
    load: lazy(() => import("./commands/kernel-build.ts")),
  },
  { name: "ls", summary: "List guest kernels", aliases: ["list"], load: lazy(() => import("./commands/kernel-ls.ts")) },
  { name: "use", summary: "Choose the guest kernel", load: lazy(() => import("./commands/kernel-use.ts")) },
  { name: "rm", summary: "Remove guest kernels", load: lazy(() => import("./commands/kernel-rm.ts")) },
];

const SYSTEM_COMMANDS: readonly CommandEntry[] = [
  { name: "info", summary: "Show what the daemon runs with", load: lazy(() => import("./commands/system-info.ts")) },
  { name: "df", summary: "Show the use of the disk", load: lazy(() => import("./commands/system-df.ts")) },
  {
    name: "prune",
    summary: "Remove ended VMs and unusable templates",
    load: lazy(() => import("./commands/system-prune.ts")),
  },
];

const inSection = (section: string, entries: readonly CommandEntry[]) =>
  entries.map((entry) => ({ ...entry, section }));

/** The command tree. */
export const COMMANDS: readonly CommandEntry[] = [
  ...inSection("VMs", VM_COMMANDS),
  ...inSection("States of VMs", [
    ...STATE_COMMANDS,
    { name: "snapshot", summary: "States of VMs that are kept", children: SNAPSHOT_COMMANDS },
  ]),
  ...inSection("What VMs are made from", [
    { name: "pull", ...COMMON_IMAGE_COMMANDS.pull },
    { name: "load", ...COMMON_IMAGE_COMMANDS.load },
    { name: "build", ...COMMON_IMAGE_COMMANDS.build },
    { name: "images", ...COMMON_IMAGE_COMMANDS.list },
    { name: "tag", ...COMMON_IMAGE_COMMANDS.tag },
    { name: "rmi", ...COMMON_IMAGE_COMMANDS.remove },
    { name: "prune", ...COMMON_IMAGE_COMMANDS.prune },
    { name: "image", summary: "Images and root file systems", children: IMAGE_COMMANDS },
    { name: "template", summary: "Parents that VMs are cloned from", children: TEMPLATE_COMMANDS },
    { name: "volume", summary: "Disks that outlive their VMs", children: VOLUME_COMMANDS },
  ]),
  ...inSection("Mayfly itself", [
    {
      name: "demo",
      summary: "Set up what is missing, and show what Mayfly does",
      load: lazy(() => import("./commands/demo.ts")),
    },
    { name: "setup", summary: "Get and build what VMs need", load: lazy(() => import("./commands/setup.ts")) },
    {
      name: "doctor",
      summary: "Say what is there and what is missing",
      load: lazy(() => import("./commands/doctor.ts")),
    },
    { name: "kernel", summary: "The guest's kernel", children: KERNEL_COMMANDS },
    { name: "qemu", summary: "The program that runs VMs", children: QEMU_COMMANDS },
    { name: "bench", summary: "Measure", load: lazy(() => import("./commands/bench.ts")) },
    { name: "events", summary: "Show what happens, as it happens", load: lazy(() => import("./commands/events.ts")) },
    { name: "system", summary: "The daemon, its disk space, cleaning up", children: SYSTEM_COMMANDS },
    {
      name: "daemon",
      summary: "Serve VMs; other commands start it when needed",
      load: lazy(() => import("./commands/daemon.ts")),
    },
    {
      name: "completion",
      summary: "Print a shell's completion script",
      load: lazy(() => import("./commands/completion.ts")),
    },
    {
      name: "version",
      summary: "Show the versions of client and daemon",
      load: lazy(() => import("./commands/version.ts")),
    },
  ]),
];
