"""AWS KMS by moto, at a port of loopback: `moto_server.py PORT`.

moto checks the encryption context, and records the state of a key without heeding it. Here a disabled key is refused, as
AWS has it (https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html).
"""

import sys

from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend
from moto.server import main


def heeding_state(operation):
    def call(self, *args, **kwargs):
        name = kwargs.get("key_id")
        key = self.keys.get(self.any_id_to_key_id(name)) if name else None
        if key is None or not key.enabled:
            raise JsonRESTError("DisabledException" if key else "NotFoundException", f"{name} cannot be used.")
        return operation(self, *args, **kwargs)

    return call


KmsBackend.encrypt = heeding_state(KmsBackend.encrypt)
KmsBackend.decrypt = heeding_state(KmsBackend.decrypt)
main(["--host", "127.0.0.1", "--port", sys.argv[1]])
