"""Canaille, an OpenID provider, for one test (tests/src/openid.rs starts it).

    provider.py FOLDER PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI

It knows this one client, and keeps all that it knows in a database in the folder. The test makes people and groups with
PUT requests to /tests/people/NAME (a password) and /tests/groups/NAME (a list of people).
"""

import asyncio
import os
import secrets
import sys

import canaille.oidc.provider
from asgiref.wsgi import WsgiToAsgi
from canaille import create_app
from canaille.app import models
from canaille.app.flask import csrf
from canaille.backends import Backend
from canaille.backends.sql.backend import Base, SQLBackend
from canaille.oidc.jose import make_default_rsa_jwk
from flask import request
from hypercorn.asyncio import serve
from hypercorn.config import Config
from sqlalchemy import DefaultClause, text

folder, port, client_id, client_secret, redirect_uri = sys.argv[1:]
# Canaille reads a file of settings where it is: here there is none.
os.chdir(folder)
address = f"127.0.0.1:{port}"

# Its own are made of person and second: two logins of somebody in one second would be one.
canaille.oidc.provider.generate_access_token = lambda **_: secrets.token_urlsafe()
app = create_app(
    init_backend=False,
    config={
        "SECRET_KEY": secrets.token_urlsafe(),
        "SERVER_NAME": address,
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "sql", "SMTP": None, "LANGUAGE": "en"},
        "CANAILLE_SQL": {"DATABASE_URI": "sqlite:///canaille.sqlite"},
        "CANAILLE_OIDC": {
            "ACTIVE_JWKS": [make_default_rsa_jwk().as_dict(private=True)],
            # Who somebody is for the client is not what they are called.
            "USERINFO_MAPPING": {"SUB": "{{ user.id }}", "PREFERRED_USERNAME": "{{ user.user_name }}"},
        },
    },
)
# The newest schema, without the way there, which takes seconds. Here the name of a function is a text for SQLAlchemy.
for table in Base.metadata.tables.values():
    for column in table.columns:
        if column.server_default is not None and column.server_default.arg == "CURRENT_TIMESTAMP":
            column.server_default = DefaultClause(text("CURRENT_TIMESTAMP"))
Base.metadata.create_all(SQLBackend.engine)


@app.put("/tests/people/<name>")
@csrf.exempt
def person(name):
    user = Backend.instance.get(models.User, user_name=name) or models.User(user_name=name)
    user.formatted_name = user.family_name = name
    user.emails = [f"{name}@people.example"]
    user.password = request.json
    Backend.instance.save(user)
    return "", 204


@app.put("/tests/groups/<name>")
@csrf.exempt
def group(name):
    found = Backend.instance.get(models.Group, display_name=name) or models.Group(display_name=name)
    members = [Backend.instance.get(models.User, user_name=member) for member in request.json]
    if not all(members):
        return "there is no such person", 400
    found.members = members
    Backend.instance.save(found)
    return "", 204


with app.app_context():
    client = models.Client(
        client_id=client_id,
        client_secret=client_secret,
        client_name=client_id,
        redirect_uris=[redirect_uri],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=["openid", "profile", "email", "groups"],
        token_endpoint_auth_method="client_secret_basic",
        id_token_signed_response_alg="RS256",
    )
    # Its tokens are for itself; it can be named once it is known.
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)

config = Config()
config.bind = [address]
config.accesslog = "-"
asyncio.run(serve(WsgiToAsgi(app), config))
