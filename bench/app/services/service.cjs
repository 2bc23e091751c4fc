// A small web service on Node: one page, rendered from a template, with numbers of two generators.
const { openSync, readSync } = require("node:fs");
const { createServer } = require("node:http");
const { hostname } = require("node:os");

const TEMPLATE = `<!doctype html>
<title>{{title}}</title>
<dl><dt>host<dd id=host>{{host}}<dt>generator<dd id=generator>{{generator}}<dt>kernel<dd id=kernel>{{kernel}}</dl>
<ul>{{items}}</ul>
`;
const ITEM = "<li class={{parity}}>{{number}} squared is {{square}}</li>";

const random = openSync("/dev/urandom", "r");
const bytes = Buffer.alloc(8);

function render(template, values) {
  return template.replace(/{{(\w+)}}/g, (_, name) => String(values[name]));
}

function page() {
  readSync(random, bytes, 0, 8, null);
  const items = Array.from({ length: 10 }, (_, number) =>
    render(ITEM, { number, square: number * number, parity: number % 2 === 0 ? "even" : "odd" }),
  );
  return render(TEMPLATE, {
    title: "A service",
    host: hostname(),
    // V8 seeds this generator once, when the process starts.
    generator: Math.random().toString(16).slice(2),
    kernel: bytes.toString("hex"),
    items: items.join("\n"),
  });
}

createServer((request, response) => {
  const body = request.url === "/" ? page() : "not found\n";
  response.writeHead(request.url === "/" ? 200 : 404, {
    "content-type": "text/html",
    "content-length": Buffer.byteLength(body),
    connection: "close",
  });
  response.end(body);
}).listen(Number(process.env.PORT ?? 8080), "0.0.0.0");
