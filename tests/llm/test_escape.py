"""The escape suite: what hostile code in the rewriter's process tries, and that it comes to nothing."""

from __future__ import annotations

import http.server
import importlib.util
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.bench.confinement import landlock_version
from diffopt.llm.sandbox import LEVELS, Limits, Ran, level_of, run

pytestmark = pytest.mark.skipif(landlock_version() < 6, reason="this kernel cannot reach the level the suite is for")

QUICK = Limits(seconds=3.0, cpu_s=2, memory_bytes=512 << 20, output_bytes=1 << 16)
KEY = "sk-planted-0123456789abcdef"


def attack(body: str, *arguments: str, limits: Limits = QUICK) -> Ran:
    """Run hostile statements as the body of a function; they set `got` to what they could take."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    code = f"def f(*arguments):\n    got = None\n{lines}\n    return got\n"
    return run(code, "f", arguments, limits, preload=())


@pytest.fixture(autouse=True)
def goes_on() -> Iterator[None]:
    """After every attack this process stands and the next run works."""
    yield
    after = run("def f(text):\n    return text.upper()\n", "f", ["fine"], QUICK, preload=())
    assert (after.status, after.value) == ("ok", "FINE")


def contained(ran: Ran) -> None:
    assert ran.level >= 4, ran
    assert ran.status == "error", ran
    assert ran.value is None
    assert any(
        word in ran.message for word in ("PermissionError", "OSError", "BlockingIOError", "No usable temporary")
    ), ran.message


def test_a_key_file_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    contained(attack("got = open(arguments[0]).read()", str(file)))
    contained(attack("import os\ngot = os.listdir(arguments[0])", str(tmp_path)))


def test_neither_the_parents_environment_nor_proc_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ours = attack("import os\ngot = dict(os.environ)")
    assert isinstance(ours.value, dict)
    assert set(ours.value) <= {"LANG", "LC_CTYPE", "PYTHONHASHSEED", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY"}
    contained(attack("got = open(f'/proc/{arguments[0]}/environ', 'rb').read().hex()", str(os.getpid())))
    contained(attack("import os\ngot = os.listdir('/proc')"))
    contained(attack("got = open('/proc/self/environ').read()"))
    contained(attack("got = open('/etc/passwd').read()"))


def test_tcp_and_udp_do_not_get_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.2)
        tcp.settimeout(0.2)
        contained(attack("import socket\nsocket.create_connection(('127.0.0.1', int(arguments[0])))", _port(tcp)))
        contained(
            attack(
                "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                "s.sendto(b'out', ('127.0.0.1', int(arguments[0])))",
                _port(udp),
            )
        )
        with pytest.raises(TimeoutError):
            tcp.accept()
        with pytest.raises(TimeoutError):
            udp.recv(10)
    raw = "import ctypes\nlibc = ctypes.CDLL(None)\ngot = [libc.socket(family, 2, 0) for family in (1, 2, 10, 16, 17)]"
    assert attack(raw).value == [-1] * 5


def test_no_process_can_be_started_so_a_fork_bomb_is_one_refusal() -> None:
    contained(attack("import os\nwhile True:\n    os.fork()"))
    contained(attack("import subprocess\ngot = subprocess.check_output(['/bin/sh', '-c', 'id'])"))
    contained(attack("import os\nos.execv('/bin/sh', ['sh'])"))
    raw = (
        "import ctypes\nlibc = ctypes.CDLL(None)\ngot = [libc.fork(), libc.vfork(), libc.syscall(56, 0x11, 0, 0, 0, 0)]"
    )
    assert attack(raw).value == [-1] * 3
    threads = attack("import threading\nthreading.Thread(target=print).start()")
    assert (threads.status, threads.message) == ("error", "RuntimeError: can't start new thread")


def test_ten_gigabytes_are_not_to_be_had() -> None:
    ran = attack("got = len(bytearray(10 << 30))")
    assert (ran.status, ran.message.split(":")[0]) == ("error", "MemoryError")
    slow = attack("got = []\nwhile True:\n    got.append(bytes(1 << 20))")
    assert slow.status in ("error", "killed")


def test_nothing_can_be_written_anywhere(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/tmp"), Path("/dev/shm"), Path.cwd(), Path(os.path.realpath(os.__file__)).parent):
        contained(attack("open(arguments[0], 'wb').write(bytes(1 << 20))", str(place / "escaped")))
        assert not (place / "escaped").exists()
    contained(attack("import os\nos.mkdir(arguments[0])", str(tmp_path / "folder")))
    contained(attack("import tempfile\nwhile True:\n    tempfile.mkstemp()"))


def test_the_parent_cannot_be_killed_or_traced() -> None:
    contained(attack("import os\nos.kill(os.getppid(), 9)"))
    contained(attack("import os\nos.killpg(int(arguments[0]), 9)", str(os.getpgrp())))
    raw = "import ctypes\ngot = ctypes.CDLL(None).ptrace(16, int(arguments[0]), 0, 0)"
    assert attack(raw, str(os.getpid())).value == -1


def test_an_endless_loop_in_c_ends_at_the_deadline() -> None:
    start = time.monotonic()
    ran = attack("sum(iter(int, 1))", limits=Limits(seconds=0.5))
    assert ran.status == "timeout"
    assert time.monotonic() - start < 5
    busy = attack("sum(iter(int, 1))", limits=Limits(seconds=20, cpu_s=1))
    assert (busy.status, busy.message) == ("killed", "killed: ended by SIGKILL")


def test_endless_output_is_cut_off() -> None:
    ran = attack("import os\nwhile True:\n    os.write(1, b'x' * 65536)")
    assert ran.status == "output"
    assert len(ran.log) <= 4000


@pytest.mark.parametrize(
    ("forged", "status"),
    [
        ("(255, 255, 255, 255)", "protocol"),
        ("(0, 0, 0, 4) + tuple(b'abcd')", "protocol"),
        ('(0, 0, 0, 15) + tuple(b\'{"type":"what"}\')', "protocol"),
        ('(0, 0, 0, 27) + tuple(b\'{"type":"done","verdict":1}\')', "protocol"),
        ("(0, 0, 1, 0) + tuple(b'half of it')", "killed"),
    ],
)
def test_a_forged_frame_is_no_answer(forged: str, status: str) -> None:
    find = "import os\nfor end in range(3, 64):\n    try:\n        os.write(end, bytes({}))\n"
    ran = attack(find.format(forged) + "    except OSError:\n        pass\nos._exit(0)")
    assert ran.status == status, ran
    assert ran.value is None


def test_a_forged_answer_of_the_right_form_is_text_and_no_more() -> None:
    body = '{"type":"done","value":"mine"}'
    find = (
        "import os\nfor end in range(3, 64):\n    try:\n"
        f"        os.write(end, ({len(body)}).to_bytes(4, 'big') + b'{body}')\n"
        "    except OSError:\n        pass"
    )
    ran = attack(find)
    assert (ran.status, ran.value) == ("ok", "mine")  # what it says is judged like whatever it may return


def test_a_patched_clock_is_nobodys_clock() -> None:
    body = (
        "import time\ntime.monotonic = time.perf_counter = time.time = lambda: 0.0\ntime.sleep(0.3)\ngot = time.time()"
    )
    ran = attack(body)
    assert ran.value == 0.0
    assert ran.seconds >= 0.3


def test_compiled_code_of_others_is_not_loaded(tmp_path: Path) -> None:
    native = importlib.util.find_spec("libcst.native")
    assert native is not None
    assert native.origin is not None
    copy = tmp_path / Path(native.origin).name
    shutil.copy(native.origin, copy)
    contained(attack("import ctypes\nctypes.CDLL(arguments[0])", str(copy)))
    load = "import importlib.machinery as m\nm.ExtensionFileLoader('native', arguments[0]).create_module(None)"
    assert attack(load, str(copy)).status == "error"
    contained(attack("import os\nos.memfd_create('code')"))
    assert (
        "ModuleNotFoundError" in attack("import sys\nsys.path.insert(0, arguments[0])\nimport torch", str(copy)).message
    )


def test_what_a_server_of_ours_holds_is_out_of_reach_by_abstract_sockets_too() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0diffopt-escape-test")
        server.listen(1)
        contained(attack("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0diffopt-escape-test')"))


def test_below_the_level_asked_for_no_line_of_the_code_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    ran = run("def f():\n    return 1\n", "f", [], Limits(level=5), preload=())
    assert ran.status == "unconfined"
    assert ran.value is None
    assert ran.message == "level 4, 5 is asked for: no container"


def test_a_level_counts_only_with_all_below_it() -> None:
    assert LEVELS[level_of(())] == "process"
    assert LEVELS[level_of(("network", "calls"))] == "process"
    assert LEVELS[level_of(("limits", "files", "calls"))] == "files"
    assert LEVELS[level_of(("limits", "files", "network", "calls"))] == "calls"


def test_threads_of_this_process_do_not_matter_to_the_child() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert attack("got = 1").value == 1
        server.shutdown()
        thread.join()


def _port(server: socket.socket) -> str:
    return str(server.getsockname()[1])
