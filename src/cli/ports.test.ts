import { expect, test } from "bun:test";
import { parsePublish } from "./ports.ts";

test.each([
  ["8080:80", [{ hostPort: 8080, guestPort: 80 }]],
  ["80", [{ hostPort: 0, guestPort: 80 }]],
  [":80", [{ hostPort: 0, guestPort: 80 }]],
  ["0:80", [{ hostPort: 0, guestPort: 80 }]],
  ["8080:80/tcp", [{ hostPort: 8080, guestPort: 80 }]],
  ["127.0.0.1:8080:80", [{ hostIp: "127.0.0.1", hostPort: 8080, guestPort: 80 }]],
  ["127.0.0.1::80", [{ hostIp: "127.0.0.1", hostPort: 0, guestPort: 80 }]],
  ["[::1]:8080:80", [{ hostIp: "::1", hostPort: 8080, guestPort: 80 }]],
  [
    "8000-8001:80-81",
    [
      { hostPort: 8000, guestPort: 80 },
      { hostPort: 8001, guestPort: 81 },
    ],
  ],
])("%s", (text, mappings) => {
  expect(parsePublish(text)).toEqual(mappings);
});

test.each([
  ["53:53/udp", "only tcp"],
  ["x:80", '"x" is no port'],
  ["80:0", "ports are 1 to 65535"],
  ["80:70000", "ports are 1 to 65535"],
  ["1.2.3.456:80:80", "1.2.3.456 is no address"],
  ["::1:80:80", "brackets"],
  ["8000-8001:80", "different lengths"],
  ["81-80", "no range"],
  ["1-9999", "no range"],
  ["", '"" is no port'],
])("%s is refused", (text, why) => {
  expect(() => parsePublish(text)).toThrow(why);
});
