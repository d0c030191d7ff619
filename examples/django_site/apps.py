from django.apps import AppConfig
from django.db.backends.signals import connection_created


def set_up(connection, **_):
    # From Django 5.1 on, two OPTIONS of the database say all this:
    #   "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    #   "transaction_mode": "IMMEDIATE",
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a setting of each connection

    # A transaction that has read cannot wait for the write lock any more, since its snapshot would
    # be too old by then ("database is locked"). So let atomic() ask for the lock at once.
    def begin():
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")

    connection._start_transaction_under_autocommit = begin


class SiteConfig(AppConfig):
    name = "django_site"

    def ready(self):
        connection_created.connect(set_up)
