// Written by tests/architecture/generate-guest-sources.ts; see guest-sources.ts.
import agent0 from "../../guest/agent/Makefile" with { type: "text" };
import agent1 from "../../guest/agent/boot.c" with { type: "text" };
import agent2 from "../../guest/agent/boot.h" with { type: "text" };
import agent3 from "../../guest/agent/cgroup.c" with { type: "text" };
import agent4 from "../../guest/agent/cgroup.h" with { type: "text" };
import agent5 from "../../guest/agent/clone.c" with { type: "text" };
import agent6 from "../../guest/agent/clone.h" with { type: "text" };
import agent7 from "../../guest/agent/container.c" with { type: "text" };
import agent8 from "../../guest/agent/container.h" with { type: "text" };
import agent9 from "../../guest/agent/container_requests.c" with { type: "text" };
import agent10 from "../../guest/agent/container_requests.h" with { type: "text" };
import agent11 from "../../guest/agent/deferred.c" with { type: "text" };
import agent12 from "../../guest/agent/deferred.h" with { type: "text" };
import agent13 from "../../guest/agent/drain.c" with { type: "text" };
import agent14 from "../../guest/agent/drain.h" with { type: "text" };
import agent15 from "../../guest/agent/events.h" with { type: "text" };
import agent16 from "../../guest/agent/files.c" with { type: "text" };
import agent17 from "../../guest/agent/files.h" with { type: "text" };
import agent18 from "../../guest/agent/first.c" with { type: "text" };
import agent19 from "../../guest/agent/first.h" with { type: "text" };
import agent20 from "../../guest/agent/frame.c" with { type: "text" };
import agent21 from "../../guest/agent/frame.h" with { type: "text" };
import agent22 from "../../guest/agent/identity.c" with { type: "text" };
import agent23 from "../../guest/agent/identity.h" with { type: "text" };
import agent24 from "../../guest/agent/init.c" with { type: "text" };
import agent25 from "../../guest/agent/init.h" with { type: "text" };
import agent26 from "../../guest/agent/loop.c" with { type: "text" };
import agent27 from "../../guest/agent/loop.h" with { type: "text" };
import agent28 from "../../guest/agent/machine.c" with { type: "text" };
import agent29 from "../../guest/agent/machine.h" with { type: "text" };
import agent30 from "../../guest/agent/main.c" with { type: "text" };
import agent31 from "../../guest/agent/modules.c" with { type: "text" };
import agent32 from "../../guest/agent/modules.h" with { type: "text" };
import agent33 from "../../guest/agent/modules.list" with { type: "text" };
import agent34 from "../../guest/agent/object.c" with { type: "text" };
import agent35 from "../../guest/agent/object.h" with { type: "text" };
import agent36 from "../../guest/agent/port.c" with { type: "text" };
import agent37 from "../../guest/agent/process.c" with { type: "text" };
import agent38 from "../../guest/agent/process.h" with { type: "text" };
import agent39 from "../../guest/agent/protocol.h" with { type: "text" };
import agent40 from "../../guest/agent/requests.c" with { type: "text" };
import agent41 from "../../guest/agent/requests.h" with { type: "text" };
import agent42 from "../../guest/agent/rootfs.c" with { type: "text" };
import agent43 from "../../guest/agent/rootfs.h" with { type: "text" };
import agent44 from "../../guest/agent/session.c" with { type: "text" };
import agent45 from "../../guest/agent/session.h" with { type: "text" };
import agent46 from "../../guest/agent/spawn.c" with { type: "text" };
import agent47 from "../../guest/agent/spawn.h" with { type: "text" };
import agent48 from "../../guest/agent/stream.c" with { type: "text" };
import agent49 from "../../guest/agent/stream.h" with { type: "text" };
import agent50 from "../../guest/agent/text.c" with { type: "text" };
import agent51 from "../../guest/agent/text.h" with { type: "text" };
import agent52 from "../../guest/agent/transfer.c" with { type: "text" };
import agent53 from "../../guest/agent/transfer.h" with { type: "text" };
import agent54 from "../../guest/agent/trim.c" with { type: "text" };
import agent55 from "../../guest/agent/wire.h" with { type: "text" };
import launcher0 from "../../launcher/Makefile" with { type: "text" };
import launcher1 from "../../launcher/launcher.c" with { type: "text" };
import launcher2 from "../../launcher/options.c" with { type: "text" };
import launcher3 from "../../launcher/options.h" with { type: "text" };

export const AGENT: Readonly<Record<string, string>> = {
  "Makefile": agent0,
  "boot.c": agent1,
  "boot.h": agent2,
  "cgroup.c": agent3,
  "cgroup.h": agent4,
  "clone.c": agent5,
  "clone.h": agent6,
  "container.c": agent7,
  "container.h": agent8,
  "container_requests.c": agent9,
  "container_requests.h": agent10,
  "deferred.c": agent11,
  "deferred.h": agent12,
  "drain.c": agent13,
  "drain.h": agent14,
  "events.h": agent15,
  "files.c": agent16,
  "files.h": agent17,
  "first.c": agent18,
  "first.h": agent19,
  "frame.c": agent20,
  "frame.h": agent21,
  "identity.c": agent22,
  "identity.h": agent23,
  "init.c": agent24,
  "init.h": agent25,
  "loop.c": agent26,
  "loop.h": agent27,
  "machine.c": agent28,
  "machine.h": agent29,
  "main.c": agent30,
  "modules.c": agent31,
  "modules.h": agent32,
  "modules.list": agent33,
  "object.c": agent34,
  "object.h": agent35,
  "port.c": agent36,
  "process.c": agent37,
  "process.h": agent38,
  "protocol.h": agent39,
  "requests.c": agent40,
  "requests.h": agent41,
  "rootfs.c": agent42,
  "rootfs.h": agent43,
  "session.c": agent44,
  "session.h": agent45,
  "spawn.c": agent46,
  "spawn.h": agent47,
  "stream.c": agent48,
  "stream.h": agent49,
  "text.c": agent50,
  "text.h": agent51,
  "transfer.c": agent52,
  "transfer.h": agent53,
  "trim.c": agent54,
  "wire.h": agent55,
};

export const LAUNCHER: Readonly<Record<string, string>> = {
  "Makefile": launcher0,
  "launcher.c": launcher1,
  "options.c": launcher2,
  "options.h": launcher3,
};
