"""What schemathesis does besides, in `make fuzz-api`, so that its questions keep their meaning.

1. Nothing of what it asks with or about goes away: where a request would end what has a name or an id that is in
   FUZZ_KEPT, between spaces, it is asked about something else.
2. Of names that nobody guesses, every other is one of something that is there.
3. Tries to enter are limited by address. Every connection comes from an address of its own, so that they are looked at.
"""

import os
import random

import schemathesis
from urllib3.util import connection

KEPT = set(os.environ["FUZZ_KEPT"].split())
ANOTHER = "01890000-0000-7000-8000-000000000000"
THERE = {"agent": ["fuzzed", "leaver"], "group": ["people"], "user": ["somebody", "leaver"]}

# Hypothesis seeds the common one anew for each request.
chance = random.SystemRandom()
connect = connection.create_connection


def from_anywhere(address, *arguments, **named):
    named["source_address"] = (".".join(["127", *(str(chance.randint(1, 254)) for _ in range(3))]), 0)
    return connect(address, *arguments[:1], **named)


connection.create_connection = from_anywhere


@schemathesis.hook
def before_call(context, case, kwargs):
    method, path = case.method.upper(), case.path
    for name, value in list((case.path_parameters or {}).items()):
        if name in THERE and chance.random() < 0.5:
            value = case.path_parameters[name] = chance.choice(THERE[name])
        ends = method == "DELETE" and path.endswith("{%s}" % name) or path.endswith(("/revoke", "/disable"))
        if ends and str(value).strip().lower() in KEPT:
            case.path_parameters[name] = ANOTHER
