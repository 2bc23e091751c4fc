"""A small web service on Python: one page, rendered from a template, with numbers of two generators."""
import os
import random
import socket
import socketserver
from http.server import BaseHTTPRequestHandler
from string import Template

TEMPLATE = Template("""<!doctype html>
<title>$title</title>
<dl><dt>host<dd id=host>$host<dt>generator<dd id=generator>$generator<dt>kernel<dd id=kernel>$kernel</dl>
<ul>$items</ul>
""")
ITEM = Template("<li class=$parity>$number squared is $square</li>")

# Seeded once, when the process starts.
generator = random.Random()


def page():
    items = [
        ITEM.substitute(number=number, square=number * number, parity="odd" if number % 2 else "even")
        for number in range(10)
    ]
    return TEMPLATE.substitute(
        title="A service",
        host=socket.gethostname(),
        generator=f"{generator.getrandbits(64):016x}",
        kernel=os.urandom(8).hex(),
        items="\n".join(items),
    ).encode()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = page() if self.path == "/" else b"not found\n"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Service).serve_forever()
