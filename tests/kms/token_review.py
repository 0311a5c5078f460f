"""The part of Kubernetes' API that a login by service account needs, at a port of loopback: `token_review.py PORT FOLDER`,
over TLS, with its certificate in FOLDER/cluster.pem.

Answers TokenReviews (https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/): a token
whose signature is `signed for NAME` is that of the service account NAME of the namespace `payments`.
"""

import base64
import datetime
import ipaddress
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"


def account(token):
    """The service account that a token was signed for; None if it was not."""
    try:
        _, _, signature = token.split(".")
        signed = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)).decode()
    except ValueError:
        return None
    return signed.removeprefix("signed for ") if signed.startswith("signed for ") else None


class Reviews(BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = account(review["spec"]["token"])
        if self.path != PATH or self.headers["Authorization"] != "Bearer reviewer":
            return self.answer(403, {"kind": "Status", "status": "Failure", "code": 403})
        user = {
            "username": f"system:serviceaccount:payments:{name}",
            "uid": f"uid-of-{name}",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:payments", "system:authenticated"],
        }
        status = {"authenticated": True, "user": user} if name else {"authenticated": False, "error": "no signature"}
        self.answer(201, {**review, "status": status})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def certificate():
    """A certificate of 127.0.0.1 that signs itself, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem, key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


port, folder = int(sys.argv[1]), Path(sys.argv[2])
pem, key = certificate()
(folder / "cluster.pem").write_bytes(pem)
(folder / "cluster.key").write_bytes(key)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "cluster.pem", folder / "cluster.key")
server = ThreadingHTTPServer(("127.0.0.1", port), Reviews)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
