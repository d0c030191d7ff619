"""How a code block of each language is run, in a scratch directory in which build/ is the build.

A snippet of a document leaves out what its reader knows: it gets an open database where it opens
none, and its declarations. At its end the database has to be open through groupcommit.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

TIMEOUT_S = 300
POLICY = re.compile(r"^(auto|on_each_flush|\w+\(.*\))$")


class Failure(Exception):
    pass


class Skip(Exception):
    pass


class Context:
    def __init__(self, repository, build, scratch, cc, cxx, include):
        self.repository = repository
        self.build = build
        self.scratch = scratch  # a new one for each block
        self.cc = shlex.split(cc)
        self.cxx = shlex.split(cxx)
        self.include = include  # directories of SQLite's headers

    def run(self, arguments, stdin="", env=None):
        """Runs a program to its end and returns what it printed; raises Failure if it fails."""
        try:
            done = subprocess.run(
                arguments,
                cwd=self.scratch,
                input=stdin,
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
            )
        except FileNotFoundError:
            raise Skip(f"{arguments[0]} is not installed") from None
        if done.returncode != 0:
            raise Failure(f"{arguments[0]}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout


def check_policy(output):
    last = output.strip().split("\n")[-1]
    if not POLICY.match(last):
        raise Failure(f"at the end the database is not open through groupcommit: {output!r}")


# ---- SQL and the sqlite3 shell ----

OPEN_IN_SHELL = ".load build/groupcommit\n.open file:app.db?vfs=groupcommit\n"


def run_sql(context, text):
    script = text if ".open" in text else OPEN_IN_SHELL + text
    # Whatever mode the snippet has set.
    script += "\n.mode list\n.headers off\nPRAGMA groupcommit_policy;\n"
    check_policy(context.run(["sqlite3", "-batch", "-bail"], stdin=script))


# ---- C and C++ ----

# `schema`, `lsn` and `rc` are there for whoever wants them.
AROUND_C = """
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "groupcommit.h"

int main(void) {
  sqlite3* db = NULL;
  sqlite3_stmt* check = NULL;
  const char* path = "app.db";
  sqlite3_int64 lsn = 0;
  int rc = SQLITE_OK;
  (void)path; (void)lsn; (void)rc;
  %s
  {
%s
  }
  if (sqlite3_prepare_v2(db, "PRAGMA groupcommit_policy", -1, &check, NULL) != SQLITE_OK) return 1;
  if (sqlite3_step(check) == SQLITE_ROW) printf("%%s\\n", (const char*)sqlite3_column_text(check, 0));
  sqlite3_finalize(check);
  return sqlite3_close(db);
}
"""
OPEN_IN_C = """
  groupcommit_register(NULL, NULL, 0, NULL);
  sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "groupcommit");
  sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", NULL, NULL, NULL);
"""


def compile_flags(context):
    vfs = context.repository / "vfs"
    return [f"-I{directory}" for directory in [vfs, *context.include]] + [f"-L{context.build}"]


LIBRARIES = ["-lgroupcommit", "-lsqlite3", "-lstdc++", "-pthread"]


def run_compiled(context, text, compiler, suffix):
    if "main(" not in text:
        text = AROUND_C % ("" if "sqlite3_open" in text else OPEN_IN_C, text)
    source = context.scratch / f"snippet{suffix}"
    source.write_text(text)
    flags = ["-Wall", "-Wextra", "-Werror", *compile_flags(context)]
    context.run([*compiler, *flags, source.name, "-o", "snippet", *LIBRARIES])
    # In case that it is linked with the shared library.
    env = {**os.environ, "LD_LIBRARY_PATH": str(context.build)}
    check_policy(context.run([str(context.scratch / "snippet")], env=env))


def run_c(context, text):
    run_compiled(context, text, [*context.cc, "-std=c11"], ".c")


def run_cxx(context, text):
    run_compiled(context, text, [*context.cxx, "-std=c++20"], ".cc")


# ---- Shell commands ----


def makefile_goals(context):
    makefile = (context.repository / "Makefile").read_text()
    return re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split()


def check_make(context, arguments):
    """CI runs the goals; here they only have to exist."""
    goals = makefile_goals(context)
    for argument in arguments:
        if "=" not in argument and argument not in goals:
            raise Failure(f"make {argument}: there is no such goal")


def compile_example(context, compiler, arguments):
    """A reader's own program: one of the examples takes its place."""
    for name, example in {"app.cc": "cpp_app.cc", "app.c": "c_app.c"}.items():
        shutil.copy(context.repository / "examples" / example, context.scratch / name)
    context.run([*compiler, *compile_flags(context), *arguments, "-o", "app"])


def check_program(context, words):
    """A program of this repository has to be there, with the options that are named."""
    path = pathlib.Path(words[0])
    inside = path.parts[0] == "build"
    program = context.build.joinpath(*path.parts[1:]) if inside else context.repository / path
    if not program.exists():
        # Without Google Benchmark, say.
        raise (Skip if inside else Failure)(f"{path} is not there")
    options = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
    if inside and options:
        text = context.run([str(program), "--help"])
        for option in options:
            # commit_bench hands these on to the library that it is made with.
            if option not in text and not option.startswith("--benchmark_"):
                raise Failure(f"{path} --help knows no {option}")


def check_file(context, name):
    if not (context.repository / name).exists():
        raise Failure(f"there is no {name}")


def run_command(context, words):
    while words and re.match(r"^\w+=", words[0]):
        words = words[1:]
    command, arguments = words[0], words[1:]
    if command == "make":
        check_make(context, arguments)
    elif command in ("cc", "gcc"):
        compile_example(context, context.cc, arguments)
    elif command in ("c++", "g++"):
        compile_example(context, context.cxx, arguments)
    elif command == "sqlite3" and len(arguments) == 2 and arguments[0] == "<":
        check_file(context, arguments[1])  # the examples have a test of their own
    elif command in ("python3", "/usr/bin/python3") and len(arguments) == 1:
        check_file(context, arguments[0])
    elif "/" in command and not command.startswith("/"):
        check_program(context, words)
    else:
        raise Failure(f"a command that runners.py knows nothing of: {shlex.join(words)}")


def run_sh(context, text):
    for line in text.replace("\\\n", " ").split("\n"):
        words = shlex.split(line, comments=True)
        if words and words[0] == "$":
            words = words[1:]
        if words:
            run_command(context, words)


# ---- Languages with a driver of SQLite ----


class Script:
    """A snippet of a script: what comes before it, and how it tells the policy at its end."""

    def __init__(self, command, probe, before, after, probe_input=""):
        self.command = command
        self.probe = probe  # arguments that ask for the driver
        self.probe_input = probe_input  # the same, as a script
        self.before = before
        self.after = after

    def __call__(self, context, text):
        if shutil.which(self.command[0]) is None:
            raise Skip(f"{self.command[0]} is not installed")
        probe = [self.command[0], *self.probe]
        if subprocess.run(probe, input=self.probe_input, text=True, capture_output=True).returncode:
            raise Skip(f"{self.command[0]} has no driver of SQLite")
        for installed, here in READERS_FILES.items():
            text = text.replace(installed, here)
        (context.scratch / "snippet").write_text(self.before + text + self.after)
        command = [word.replace("BUILD", str(context.build)) for word in self.command]
        check_policy(context.run([*command, "snippet"]))


# Names that stand for a reader's own.
READERS_FILES = {"/usr/local/lib/x86_64-linux-gnu/groupcommit.so": "build/groupcommit.so", "/srv/site/": ""}

# The system's: other builds of Python often cannot load extensions.
PYTHON = ["/usr/bin/python3"]
LOAD_IN_PYTHON = """
import sqlite3
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension("build/groupcommit")
"""
OPEN_IN_PYTHON = """
db = sqlite3.connect("file:app.db?vfs=groupcommit", uri=True)
db.execute("PRAGMA journal_mode=WAL")
"""
# Of the connections that the snippet has left, one has to be open through the VFS.
CHECK_IN_PYTHON = """
for _value in list(globals().values()):
    if isinstance(_value, sqlite3.Connection):
        try:
            _row = _value.execute("PRAGMA groupcommit_policy").fetchone()
        except sqlite3.ProgrammingError:
            continue  # closed
        if _row:
            print(_row[0])
            break
"""

SQLALCHEMY = Script(
    PYTHON,
    ["-c", "import sqlalchemy"],
    LOAD_IN_PYTHON
    + "from sqlalchemy import create_engine, event\nfrom sqlalchemy.pool import QueuePool\n",
    """
with engine.connect() as connection:
    print(connection.exec_driver_sql("PRAGMA groupcommit_policy").scalar())
""",
)

DJANGO = Script(
    PYTHON,
    ["-c", "import django"],
    "import sqlite3\n",
    """
import django.conf
django.conf.settings.configure(DATABASES=DATABASES)
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("PRAGMA groupcommit_policy")
    print(cursor.fetchone()[0])
""",
)


def run_python(context, text):
    if "create_engine(" in text:
        SQLALCHEMY(context, text)
    elif "DATABASES" in text:
        DJANGO(context, text)
    else:
        opens = "sqlite3.connect(" in text
        opened = "" if opens else LOAD_IN_PYTHON + OPEN_IN_PYTHON
        # What imports the module by itself may have something to do before that.
        before, after = ("", opened) if "import sqlite3" in text else (opened or "import sqlite3\n", "")
        Script(PYTHON, ["-c", "import sqlite3"], before, after + CHECK_IN_PYTHON)(context, text)


PERL = Script(
    ["perl"],
    ["-MDBI", "-MDBD::SQLite", "-e", "1"],
    "use strict; use warnings; use DBI;\n",
    "print $dbh->selectrow_array('PRAGMA groupcommit_policy'), qq(\\n);\n",
)
TCL = Script(
    ["tclsh"],
    [],
    "package require sqlite3\n",
    "puts [db eval {PRAGMA groupcommit_policy}]\n",
    probe_input="exit [catch {package require sqlite3}]",
)
RUBY = Script(
    ["ruby"],
    ["-rsqlite3", "-e", "1"],
    'require "sqlite3"\n',
    'puts db.get_first_value("PRAGMA groupcommit_policy")\n',
)
PHP = Script(
    ["php", "-d", "sqlite3.extension_dir=BUILD"],
    ["-r", "new SQLite3(':memory:'); new PDO('sqlite::memory:');"],
    "<?php\n",
    "echo $db->query('PRAGMA groupcommit_policy')->fetchColumn();\n",
)

RUNNERS = {
    "sql": run_sql,
    "sqlite": run_sql,
    "python": run_python,
    "c": run_c,
    "c++": run_cxx,
    "cpp": run_cxx,
    "sh": run_sh,
    "shell": run_sh,
    "bash": run_sh,
    "perl": PERL,
    "tcl": TCL,
    "ruby": RUBY,
    "php": PHP,
}


def runner_of(block):
    """None if nobody knows how to run the block."""
    if block.language:
        return RUNNERS.get(block.language)
    # The sqlite3 shell has no name as a language.
    return run_sql if block.first_line.startswith(".") else None
