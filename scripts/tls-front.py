#!/usr/bin/env python3
"""A DNS server that knows one name, and TLS in front of the sandbox.

For scripts/try-static: tls-front.py CERTIFICATE KEY URL answers every A
question on 127.0.0.1:53 with 127.0.0.1, and passes what comes to port 8443 on
to URL. Prints a line once it listens.
"""

import http.server
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request

certificate, key, url = sys.argv[1:]


def answer_names(server):
    while True:
        question, sender = server.recvfrom(512)
        end = question.index(0, 12) + 5
        is_a = question[end - 4 : end - 2] == b"\x00\x01"
        head = question[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if is_a else b"\x00\x00") + b"\x00\x00\x00\x00"
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x7f\x00\x00\x01" if is_a else b""
        server.sendto(head + question[12:end] + record, sender)


class Front(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name: self.headers[name] for name in ("Content-Type", "User-Agent") if self.headers[name]}
        try:
            reply = urllib.request.urlopen(urllib.request.Request(url + self.path, body, headers))
        except urllib.error.HTTPError as error:
            reply = error
        body = reply.read()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
threading.Thread(target=answer_names, args=(names,), daemon=True).start()
front = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Front)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
front.socket = context.wrap_socket(front.socket, server_side=True)
print("listening", flush=True)
front.serve_forever()
