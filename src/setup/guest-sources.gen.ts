// Written by tests/architecture/generate-guest-sources.ts; see guest-sources.ts.
import agent0 from "../../guest/agent/Makefile" with { type: "text" };
import agent1 from "../../guest/agent/boot.c" with { type: "text" };
import agent2 from "../../guest/agent/boot.h" with { type: "text" };
import agent3 from "../../guest/agent/cgroup.c" with { type: "text" };
import agent4 from "../../guest/agent/cgroup.h" with { type: "text" };
import agent5 from "../../guest/agent/deferred.c" with { type: "text" };
import agent6 from "../../guest/agent/deferred.h" with { type: "text" };
import agent7 from "../../guest/agent/drain.c" with { type: "text" };
import agent8 from "../../guest/agent/drain.h" with { type: "text" };
import agent9 from "../../guest/agent/events.h" with { type: "text" };
import agent10 from "../../guest/agent/files.c" with { type: "text" };
import agent11 from "../../guest/agent/files.h" with { type: "text" };
import agent12 from "../../guest/agent/frame.c" with { type: "text" };
import agent13 from "../../guest/agent/frame.h" with { type: "text" };
import agent14 from "../../guest/agent/identity.c" with { type: "text" };
import agent15 from "../../guest/agent/identity.h" with { type: "text" };
import agent16 from "../../guest/agent/loop.c" with { type: "text" };
import agent17 from "../../guest/agent/loop.h" with { type: "text" };
import agent18 from "../../guest/agent/machine.c" with { type: "text" };
import agent19 from "../../guest/agent/machine.h" with { type: "text" };
import agent20 from "../../guest/agent/main.c" with { type: "text" };
import agent21 from "../../guest/agent/modules.c" with { type: "text" };
import agent22 from "../../guest/agent/modules.h" with { type: "text" };
import agent23 from "../../guest/agent/modules.list" with { type: "text" };
import agent24 from "../../guest/agent/object.c" with { type: "text" };
import agent25 from "../../guest/agent/object.h" with { type: "text" };
import agent26 from "../../guest/agent/port.c" with { type: "text" };
import agent27 from "../../guest/agent/process.c" with { type: "text" };
import agent28 from "../../guest/agent/process.h" with { type: "text" };
import agent29 from "../../guest/agent/protocol.h" with { type: "text" };
import agent30 from "../../guest/agent/requests.c" with { type: "text" };
import agent31 from "../../guest/agent/requests.h" with { type: "text" };
import agent32 from "../../guest/agent/root.c" with { type: "text" };
import agent33 from "../../guest/agent/root.h" with { type: "text" };
import agent34 from "../../guest/agent/session.c" with { type: "text" };
import agent35 from "../../guest/agent/session.h" with { type: "text" };
import agent36 from "../../guest/agent/spawn.c" with { type: "text" };
import agent37 from "../../guest/agent/spawn.h" with { type: "text" };
import agent38 from "../../guest/agent/stream.c" with { type: "text" };
import agent39 from "../../guest/agent/stream.h" with { type: "text" };
import agent40 from "../../guest/agent/text.c" with { type: "text" };
import agent41 from "../../guest/agent/text.h" with { type: "text" };
import agent42 from "../../guest/agent/transfer.c" with { type: "text" };
import agent43 from "../../guest/agent/transfer.h" with { type: "text" };
import agent44 from "../../guest/agent/trim.c" with { type: "text" };
import agent45 from "../../guest/agent/wire.h" with { type: "text" };
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
  "deferred.c": agent5,
  "deferred.h": agent6,
  "drain.c": agent7,
  "drain.h": agent8,
  "events.h": agent9,
  "files.c": agent10,
  "files.h": agent11,
  "frame.c": agent12,
  "frame.h": agent13,
  "identity.c": agent14,
  "identity.h": agent15,
  "loop.c": agent16,
  "loop.h": agent17,
  "machine.c": agent18,
  "machine.h": agent19,
  "main.c": agent20,
  "modules.c": agent21,
  "modules.h": agent22,
  "modules.list": agent23,
  "object.c": agent24,
  "object.h": agent25,
  "port.c": agent26,
  "process.c": agent27,
  "process.h": agent28,
  "protocol.h": agent29,
  "requests.c": agent30,
  "requests.h": agent31,
  "root.c": agent32,
  "root.h": agent33,
  "session.c": agent34,
  "session.h": agent35,
  "spawn.c": agent36,
  "spawn.h": agent37,
  "stream.c": agent38,
  "stream.h": agent39,
  "text.c": agent40,
  "text.h": agent41,
  "transfer.c": agent42,
  "transfer.h": agent43,
  "trim.c": agent44,
  "wire.h": agent45,
};

export const LAUNCHER: Readonly<Record<string, string>> = {
  "Makefile": launcher0,
  "launcher.c": launcher1,
  "options.c": launcher2,
  "options.h": launcher3,
};
