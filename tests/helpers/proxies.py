"""A reverse proxy that serves a server below a prefix, as nginx and others do."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

NOT_FORWARDED = ("host", "connection", "transfer-encoding")


@contextmanager
def stripping_proxy(port: int, prefix: str, *, forwards_host: bool) -> Iterator[str]:
    """Serve what is at a port below a prefix, which is removed from requests; return its URL."""

    class Proxy(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in NOT_FORWARDED}
            headers["Host"] = self.headers["Host"] if forwards_host else f"127.0.0.1:{port}"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream.request(self.command, "/" + self.path.removeprefix(prefix), body, headers)
            reply = upstream.getresponse()
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in NOT_FORWARDED:
                    self.send_header(name, value)
            self.end_headers()
            while piece := reply.read1():
                self.wfile.write(piece)
            upstream.close()

        do_GET = do_POST = do_OPTIONS = forward

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://proxy.localhost:{server.server_port}{prefix}"
        finally:
            server.shutdown()
