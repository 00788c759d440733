"""A process that forks: parent and child go on, each for itself."""

import textwrap

import pytest

from tests.engine.store.redis.post.office import Box, key, run_python


def run_forking(box: Box, body: str) -> str:
    """As `run_python`; newer Pythons warn of every fork beside a thread."""
    return run_python(box, "import os, warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(body))


@pytest.mark.e2e
def test_fork_after_use(box: Box):
    """Parent and children go on after a fork in the midst of traffic: each with its own connection and id, and the counts are right."""
    name = key()
    printed = run_forking(
        box,
        f"""
        import gc, threading, time
        increment = Operation('incr', ('{name}',), ())
        heard = []
        courier = Courier({box.url!r}, sys.argv[1], channel='{name}', heard=heard.append)
        courier.check()
        counts = []
        def work():
            counts.append(sum(courier.ask(increment).result() is not DOWN for _ in range(300)))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        ours, children = courier.process, []
        for _ in range(4):
            time.sleep(0.01)
            pid = os.fork()
            if not pid:
                try:
                    gc.collect()
                    assert courier.process != ours and courier.up and not courier.open
                    good = sum(courier.ask(increment).result() is not DOWN for _ in range(100))
                    courier.tell(increment, urgent=False)
                    courier.close()
                    os._exit(0 if good == 100 else 1)
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(2)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        for thread in threads: thread.join()
        assert courier.process == ours
        while True:
            courier.ask(Operation('publish', (), ('{name}', 'still here'))).result()
            if heard: break
            time.sleep(0.02)
        print(codes, counts, courier.ask(increment).result(), heard[0])
        """,
    )
    assert printed.strip() == f"[0, 0, 0, 0] [300, 300, 300, 300] {4 * 300 + 4 * 101 + 1} b'still here'"


@pytest.mark.e2e
def test_what_the_parent_waits_for_is_not_the_childs(box: Box):
    """In a child, what was asked before the fork is DOWN at once and never sent; in the parent it is answered."""
    name = key()
    printed = run_forking(
        box,
        f"""
        courier.check()
        letter = courier.ask(Operation('incr', ('{name}',), ()))
        pid = os.fork()
        if not pid:
            os._exit(0 if letter.result() is DOWN and courier.flush() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), letter.result())
        """,
    )
    assert printed.split() == ["0", "1"]
