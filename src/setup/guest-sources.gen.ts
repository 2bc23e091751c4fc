// Written by tests/architecture/generate-guest-sources.ts; see guest-sources.ts.
import agent0 from "../../guest/agent/Makefile" with { type: "text" };
import agent1 from "../../guest/agent/blocks.c" with { type: "text" };
import agent2 from "../../guest/agent/blocks.h" with { type: "text" };
import agent3 from "../../guest/agent/boot.c" with { type: "text" };
import agent4 from "../../guest/agent/boot.h" with { type: "text" };
import agent5 from "../../guest/agent/cgroup.c" with { type: "text" };
import agent6 from "../../guest/agent/cgroup.h" with { type: "text" };
import agent7 from "../../guest/agent/clone.c" with { type: "text" };
import agent8 from "../../guest/agent/clone.h" with { type: "text" };
import agent9 from "../../guest/agent/connection.c" with { type: "text" };
import agent10 from "../../guest/agent/connection.h" with { type: "text" };
import agent11 from "../../guest/agent/container.c" with { type: "text" };
import agent12 from "../../guest/agent/container.h" with { type: "text" };
import agent13 from "../../guest/agent/container_requests.c" with { type: "text" };
import agent14 from "../../guest/agent/container_requests.h" with { type: "text" };
import agent15 from "../../guest/agent/deferred.c" with { type: "text" };
import agent16 from "../../guest/agent/deferred.h" with { type: "text" };
import agent17 from "../../guest/agent/dial.c" with { type: "text" };
import agent18 from "../../guest/agent/dial.h" with { type: "text" };
import agent19 from "../../guest/agent/drain.c" with { type: "text" };
import agent20 from "../../guest/agent/drain.h" with { type: "text" };
import agent21 from "../../guest/agent/events.h" with { type: "text" };
import agent22 from "../../guest/agent/files.c" with { type: "text" };
import agent23 from "../../guest/agent/files.h" with { type: "text" };
import agent24 from "../../guest/agent/first.c" with { type: "text" };
import agent25 from "../../guest/agent/first.h" with { type: "text" };
import agent26 from "../../guest/agent/frame.c" with { type: "text" };
import agent27 from "../../guest/agent/frame.h" with { type: "text" };
import agent28 from "../../guest/agent/identity.c" with { type: "text" };
import agent29 from "../../guest/agent/identity.h" with { type: "text" };
import agent30 from "../../guest/agent/init.c" with { type: "text" };
import agent31 from "../../guest/agent/init.h" with { type: "text" };
import agent32 from "../../guest/agent/loop.c" with { type: "text" };
import agent33 from "../../guest/agent/loop.h" with { type: "text" };
import agent34 from "../../guest/agent/machine.c" with { type: "text" };
import agent35 from "../../guest/agent/machine.h" with { type: "text" };
import agent36 from "../../guest/agent/main.c" with { type: "text" };
import agent37 from "../../guest/agent/modules.c" with { type: "text" };
import agent38 from "../../guest/agent/modules.h" with { type: "text" };
import agent39 from "../../guest/agent/modules.list" with { type: "text" };
import agent40 from "../../guest/agent/object.c" with { type: "text" };
import agent41 from "../../guest/agent/object.h" with { type: "text" };
import agent42 from "../../guest/agent/port.c" with { type: "text" };
import agent43 from "../../guest/agent/process.c" with { type: "text" };
import agent44 from "../../guest/agent/process.h" with { type: "text" };
import agent45 from "../../guest/agent/protocol.h" with { type: "text" };
import agent46 from "../../guest/agent/requests.c" with { type: "text" };
import agent47 from "../../guest/agent/requests.h" with { type: "text" };
import agent48 from "../../guest/agent/rootfs.c" with { type: "text" };
import agent49 from "../../guest/agent/rootfs.h" with { type: "text" };
import agent50 from "../../guest/agent/session.c" with { type: "text" };
import agent51 from "../../guest/agent/session.h" with { type: "text" };
import agent52 from "../../guest/agent/spawn.c" with { type: "text" };
import agent53 from "../../guest/agent/spawn.h" with { type: "text" };
import agent54 from "../../guest/agent/stream.c" with { type: "text" };
import agent55 from "../../guest/agent/stream.h" with { type: "text" };
import agent56 from "../../guest/agent/survey.c" with { type: "text" };
import agent57 from "../../guest/agent/survey.h" with { type: "text" };
import agent58 from "../../guest/agent/survey_changes.c" with { type: "text" };
import agent59 from "../../guest/agent/survey_out.c" with { type: "text" };
import agent60 from "../../guest/agent/survey_out.h" with { type: "text" };
import agent61 from "../../guest/agent/survey_processes.c" with { type: "text" };
import agent62 from "../../guest/agent/text.c" with { type: "text" };
import agent63 from "../../guest/agent/text.h" with { type: "text" };
import agent64 from "../../guest/agent/transfer.c" with { type: "text" };
import agent65 from "../../guest/agent/transfer.h" with { type: "text" };
import agent66 from "../../guest/agent/trim.c" with { type: "text" };
import agent67 from "../../guest/agent/turns.c" with { type: "text" };
import agent68 from "../../guest/agent/turns.h" with { type: "text" };
import agent69 from "../../guest/agent/wire.h" with { type: "text" };
import launcher0 from "../../launcher/Makefile" with { type: "text" };
import launcher1 from "../../launcher/copy.c" with { type: "text" };
import launcher2 from "../../launcher/copy.h" with { type: "text" };
import launcher3 from "../../launcher/descriptors.c" with { type: "text" };
import launcher4 from "../../launcher/descriptors.h" with { type: "text" };
import launcher5 from "../../launcher/discard.c" with { type: "text" };
import launcher6 from "../../launcher/discard.h" with { type: "text" };
import launcher7 from "../../launcher/final.c" with { type: "text" };
import launcher8 from "../../launcher/final.h" with { type: "text" };
import launcher9 from "../../launcher/image-pages.c" with { type: "text" };
import launcher10 from "../../launcher/image-state.c" with { type: "text" };
import launcher11 from "../../launcher/image.c" with { type: "text" };
import launcher12 from "../../launcher/image.h" with { type: "text" };
import launcher13 from "../../launcher/launcher.c" with { type: "text" };
import launcher14 from "../../launcher/options.c" with { type: "text" };
import launcher15 from "../../launcher/options.h" with { type: "text" };
import launcher16 from "../../launcher/parent.c" with { type: "text" };
import launcher17 from "../../launcher/parent.h" with { type: "text" };
import launcher18 from "../../launcher/restore.c" with { type: "text" };
import launcher19 from "../../launcher/thread.c" with { type: "text" };
import launcher20 from "../../launcher/thread.h" with { type: "text" };

export const AGENT: Readonly<Record<string, string>> = {
  "Makefile": agent0,
  "blocks.c": agent1,
  "blocks.h": agent2,
  "boot.c": agent3,
  "boot.h": agent4,
  "cgroup.c": agent5,
  "cgroup.h": agent6,
  "clone.c": agent7,
  "clone.h": agent8,
  "connection.c": agent9,
  "connection.h": agent10,
  "container.c": agent11,
  "container.h": agent12,
  "container_requests.c": agent13,
  "container_requests.h": agent14,
  "deferred.c": agent15,
  "deferred.h": agent16,
  "dial.c": agent17,
  "dial.h": agent18,
  "drain.c": agent19,
  "drain.h": agent20,
  "events.h": agent21,
  "files.c": agent22,
  "files.h": agent23,
  "first.c": agent24,
  "first.h": agent25,
  "frame.c": agent26,
  "frame.h": agent27,
  "identity.c": agent28,
  "identity.h": agent29,
  "init.c": agent30,
  "init.h": agent31,
  "loop.c": agent32,
  "loop.h": agent33,
  "machine.c": agent34,
  "machine.h": agent35,
  "main.c": agent36,
  "modules.c": agent37,
  "modules.h": agent38,
  "modules.list": agent39,
  "object.c": agent40,
  "object.h": agent41,
  "port.c": agent42,
  "process.c": agent43,
  "process.h": agent44,
  "protocol.h": agent45,
  "requests.c": agent46,
  "requests.h": agent47,
  "rootfs.c": agent48,
  "rootfs.h": agent49,
  "session.c": agent50,
  "session.h": agent51,
  "spawn.c": agent52,
  "spawn.h": agent53,
  "stream.c": agent54,
  "stream.h": agent55,
  "survey.c": agent56,
  "survey.h": agent57,
  "survey_changes.c": agent58,
  "survey_out.c": agent59,
  "survey_out.h": agent60,
  "survey_processes.c": agent61,
  "text.c": agent62,
  "text.h": agent63,
  "transfer.c": agent64,
  "transfer.h": agent65,
  "trim.c": agent66,
  "turns.c": agent67,
  "turns.h": agent68,
  "wire.h": agent69,
};

export const LAUNCHER: Readonly<Record<string, string>> = {
  "Makefile": launcher0,
  "copy.c": launcher1,
  "copy.h": launcher2,
  "descriptors.c": launcher3,
  "descriptors.h": launcher4,
  "discard.c": launcher5,
  "discard.h": launcher6,
  "final.c": launcher7,
  "final.h": launcher8,
  "image-pages.c": launcher9,
  "image-state.c": launcher10,
  "image.c": launcher11,
  "image.h": launcher12,
  "launcher.c": launcher13,
  "options.c": launcher14,
  "options.h": launcher15,
  "parent.c": launcher16,
  "parent.h": launcher17,
  "restore.c": launcher18,
  "thread.c": launcher19,
  "thread.h": launcher20,
};
