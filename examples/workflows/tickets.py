"""A ticket server for the support desk, in memory: tickets.py [PORT]. It needs only Python.

A request that comes again with its Idempotency-Key gets the ticket that it made.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

tickets: dict[str, dict[str, object]] = {}


class Tickets(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Open a ticket."""
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Idempotency-Key") or f"ticket {len(tickets) + 1}"
        self._answer(201, tickets.setdefault(key, {"id": len(tickets) + 1, **given}))

    def do_GET(self) -> None:
        """List all tickets."""
        self._answer(200, list(tickets.values()))

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8077), Tickets)
sys.stdout.write(f"http://127.0.0.1:{server.server_port}/tickets\n")
sys.stdout.flush()
server.serve_forever()
