#!/usr/bin/python3
"""Group commit with Django (3.2 or later): the project in django_site/, served by threads.

Creates the database by a migration; then eight clients post 50 entries each, one after the other,
to Django's threaded server. Requests whose transactions commit at the same time share syncs.
Servers with threads, such as gunicorn --threads 8, do so too; processes share nothing.

    examples/django_app.py          a new database in a temporary directory, removed at the end
    examples/django_app.py FILE     a new database FILE, which is kept
"""

import concurrent.futures
import http.client
import os
import pathlib
import sys
import tempfile
import threading

import django
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import connection

CLIENTS = 8
REQUESTS_PER_CLIENT = 50


def post_entries(address, writer):
    client = http.client.HTTPConnection(*address)
    for _ in range(REQUESTS_PER_CLIENT):
        client.request("POST", f"/{writer}/entries")
        response = client.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise RuntimeError(f"writer {writer}: {response.status} {text}")


def serve_clients():
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.daemon_threads = False  # so that server_close() waits for them
    server.set_app(get_wsgi_application())
    threading.Thread(target=server.serve_forever).start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
            addresses = [server.server_address] * CLIENTS
            for _ in executor.map(post_entries, addresses, range(CLIENTS)):
                pass  # or raises what the client has raised
    finally:
        server.shutdown()
        server.server_close()


def run(file):
    os.environ["DATABASE_FILE"] = str(file)
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"
    django.setup()
    # This thread's connection stays open to the end: the statistics of a database are counted from
    # its first connection until its last one closes.
    call_command("migrate", verbosity=0)
    serve_clients()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM entry")
        print(f"rows     {cursor.fetchone()[0]}")
        cursor.execute("SELECT commits, syncs FROM groupcommit_stats")
        print("commits  {}\nsyncs    {}".format(*cursor.fetchone()))
    connection.close()


def main():
    if len(sys.argv) > 1:
        run(pathlib.Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="groupcommit-") as directory:
            run(pathlib.Path(directory) / "app.db")


if __name__ == "__main__":
    main()
