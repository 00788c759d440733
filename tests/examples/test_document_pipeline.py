"""The document pipeline of the examples, as it stands: a real uvicorn, a real Celery worker on a real Valkey, real HTTP to a provider."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from celery import Celery
from PIL import Image

from langchain_resilient.engine.dead_letters.box import Box, BoxError
from langchain_resilient.engine.dead_letters.opening import open_box
from langchain_resilient.testing import Fault, FaultServer
from tests.servers import Server, binary_or_skip, free_port, valkey_binary

pytestmark = pytest.mark.timeout(400)

FOLDER = Path(__file__).parent.parent.parent / "examples" / "document_pipeline"
ATTEMPTS = 5  # the default of model.py
NAIVE = 9  # three attempts in the task, three runs of the task
SETTINGS = """
providers: [openai:gpt-4.1-mini]
backend: ${REDIS_URL}
namespace: document-pipeline
dead_letters: true
retry: {base_delay: 0.05}
circuit: {failure_threshold: 8, recovery_timeout: 0.5, probe: inline}
timeouts: {response: 2, total: 4}
"""


def module(name: str) -> ModuleType:
    """A file of the example, imported as its neighbours import it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


@contextmanager
def imported(*names: str) -> Iterator[list[ModuleType]]:
    """Files of the example that read the environment when they are imported: for the block alone."""
    for name in names:
        sys.modules.pop(name, None)
    try:
        yield [module(name) for name in names]
    finally:
        for name in names:
            sys.modules.pop(name, None)


def full(_letter: object) -> None:
    """A box that can keep nothing."""
    raise BoxError("the spool is full")


draw = module("page").draw
reading = module("reading")


class Pipeline:
    """The running processes, and what a user of them does."""

    def __init__(self, redis: Server, provider: FaultServer, folder: Path) -> None:
        self.redis, self.provider, self.folder = redis, provider, folder
        settings = folder / "model.yaml"
        settings.write_text(SETTINGS)
        self.environment = os.environ | {
            "PYTHONPATH": str(FOLDER), "REDIS_URL": redis.url, "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": provider.base_url("openai"), "PIPELINE_MODEL": str(settings), "PIPELINE_LEASE": "5",
            "PIPELINE_LONGEST_WAIT": "1", "TESSERACT": "not-installed",
        }  # fmt: skip
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        self.api = self.start("uvicorn", "app:app", "--port", str(port))
        self.worker = self.start_worker()

    def close(self) -> None:
        """Stop what runs."""
        self.http.close()
        end(self.worker)
        end(self.api)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A process in the test's own folder; what it prints is in a file there."""
        runs = ["-m", *command] if not command[0].endswith(".py") else [FOLDER / command[0]]
        with (self.folder / command[0]).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *runs], cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A Celery worker."""
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self.start("celery", "-A", "tasks", "worker", "--pool", "threads", "--concurrency", "8", *quiet)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Dead letters are asked again inside the block."""
        process = self.start("replay.py")
        try:
            yield
        finally:
            end(process)

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self.folder / name).read_text(errors="replace")

    def answers(self) -> bool:
        """Whether the service is there."""
        try:
            return self.http.get("/status").status_code == 200
        except httpx.TransportError:
            return False

    def upload(self, number: str) -> str:
        """Send a page in; returns the job's id."""
        taken = self.http.post("/documents", content=draw(number, "240.00"))
        assert taken.status_code == 202, taken.text
        return taken.json()["job"]

    def deliver(self, job: str) -> None:
        """Send a job's message once more."""
        with Celery(broker=self.redis.url) as sender:
            sender.send_task("extract", (job,))

    def job(self, job: str) -> dict[str, Any]:
        """What the service says of a job."""
        return self.http.get(f"/jobs/{job}").json()

    def ended(self, job: str, *states: str, within: float = 60) -> dict[str, Any]:
        """Wait until a job has one of these states."""
        try:
            until(lambda: self.job(job)["state"] in states, within)
        except AssertionError:
            told = "".join(self.log(name)[-3000:] for name in ("celery", "replay.py") if (self.folder / name).exists())
            pytest.fail(f"{self.job(job)} is not {states}\n{told}")
        return self.job(job)

    def asked(self, number: str, outcome: str | None = None) -> int:
        """How many requests were made for a page, or those that went so."""
        return sum(
            number in json.dumps(request.body) and outcome in {None, request.outcome}
            for request in self.provider.requests
        )

    def reset(self) -> None:
        """Tell the fleet that what was held against the credential is mended."""
        words = ("circuits", "reset", "openai/gpt-4.1-mini", "-c", str(self.folder / "model.yaml"))
        done = subprocess.run(
            [sys.executable, "-m", "langchain_resilient.cli", *words],
            cwd=self.folder, env=self.environment | {"PYTHONPATH": str(FOLDER.parent.parent)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    @contextmanager
    def letters(self) -> Iterator[Box]:
        """The dead letters in Redis."""
        box = open_box(self.redis.url, namespace="document-pipeline")
        try:
            yield box
        finally:
            box.close()


def until(condition: Callable[[], Any], within: float) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process by its pid, politely first."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, much_of_the_machine: None) -> Iterator[Pipeline]:
    """One pipeline for the tests of this file."""
    with ExitStack() as stack:
        redis = stack.enter_context(Server(binary_or_skip(valkey_binary)))
        provider = stack.enter_context(FaultServer())
        pipeline = Pipeline(redis, provider, tmp_path_factory.mktemp("pipeline"))
        stack.callback(pipeline.close)
        until(lambda: pipeline.api.poll() is not None or pipeline.answers(), 100)
        assert pipeline.api.poll() is None, pipeline.log("uvicorn")
        yield pipeline


@pytest.fixture
def pipeline(running: Pipeline) -> Pipeline:
    """A pipeline whose provider is well at the beginning, and has not been asked yet."""
    running.provider.always(Fault.ok())
    running.provider.reset_log()
    return running


@pytest.mark.e2e
def test_a_page_becomes_an_invoice(pipeline: Pipeline):
    """Uploaded, read, extracted to the schema with one request, and told as JSON."""
    job = pipeline.upload("2026-101")
    told = pipeline.ended(job, "done")
    assert (told["attempts"], told["read_by"], told["late"], told["reason"]) == (1, "fixture", False, None)
    assert set(told["result"]) == {"number", "total", "currency"}
    assert pipeline.asked("Invoice 2026-101") == 1
    assert pipeline.http.get("/jobs/nothing").status_code == 404
    assert pipeline.http.post("/documents").status_code == 400
    assert pipeline.http.post("/documents", content=b"x" * 6_000_000).status_code == 413


@pytest.mark.e2e
def test_what_is_refused_for_good_fails(pipeline: Pipeline):
    """A page that the provider answers 400, and one that can't be read: the reason is told, nobody asks again, no letter is left."""
    pipeline.provider.always(Fault.status(400))
    job = pipeline.upload("2026-102")
    unreadable = pipeline.http.post("/documents", content=b"no image").json()["job"]
    told = pipeline.ended(job, "failed")
    assert (told["attempts"], told["reason"]) == (1, "refused for good: client_error")
    assert "no image" in pipeline.ended(unreadable, "failed")["reason"]
    assert pipeline.provider.count == 1
    with pipeline.letters() as box:
        assert box.letters() == []


@pytest.mark.e2e
def test_inner_and_outer_attempts_do_not_multiply(pipeline: Pipeline):
    """A provider that always fails gets five requests for a job, over all tries; then the job is a dead letter, and fails if that is parked."""
    pipeline.provider.always(Fault.status(503))
    job = pipeline.upload("2026-103")
    told = pipeline.ended(job, "waiting")
    assert "kept as a dead letter, will be answered later (overloaded)" in told["reason"]
    assert pipeline.provider.count == told["attempts"] == told["most_attempts"] == ATTEMPTS < NAIVE
    with pipeline.letters() as box:
        ((state, letter),) = box.letters()
        # Kept when the job was put away, without asking anybody; not by a try, while Celery was still to try again.
        assert (state, letter.key, letter.kind, letter.attempts) == ("waiting", job, "deadline", ())
        (claimed,) = box.claim(1, 60.0)
        box.park(claimed, "its page is cursed")
        assert pipeline.ended(job, "failed")["reason"] == "its page is cursed"
        box.purge(ids=[letter.id])


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("fault", "why"), [(Fault.status(401), "auth"), (Fault.quota_exhausted(), "quota_exhausted")], ids=["auth", "quota"]
)
def test_what_somebody_has_to_mend_waits_for_that(pipeline: Pipeline, fault: Fault, why: str):
    """A key that every provider refuses, a used-up quota: one request, then a dead letter at once; answered once it is mended and told."""
    pipeline.reset()  # what the test before has done to the circuit is not at issue
    pipeline.provider.always(fault)
    number = "2026-111" if why == "auth" else "2026-112"
    job = pipeline.upload(number)
    told = pipeline.ended(job, "waiting", "failed", "done")
    assert (told["state"], told["attempts"], pipeline.provider.count) == ("waiting", 1, 1)
    assert f"will be answered later ({why})" in told["reason"]
    pipeline.provider.always(Fault.ok())
    pipeline.reset()
    with pipeline.replaying():
        assert pipeline.ended(job, "done")["late"]
    assert pipeline.asked(number) == 2


@pytest.mark.e2e
def test_a_letter_that_is_lost_goes_back_to_celery(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """A job whose letter could be written nowhere is not said to wait: it is queued, and comes again; put away then, it has its letter."""
    for name, value in pipeline.environment.items():
        monkeypatch.setenv(name, value)
    with imported("tasks", "model", "jobs") as (tasks, model, jobs):
        job, asked = jobs.create(b"a page"), model.question("Invoice 2026-113")
        monkeypatch.setattr(tasks.model.letters, "put", full)
        assert tasks.put_away(job, asked, "auth") == tasks.LONGEST_WAIT
        known = jobs.read(job)
        assert (known["state"], known["reason"], "letter" in known) == ("queued", "auth", False)
        monkeypatch.undo()
        assert tasks.put_away(job, asked, "auth") is None
        known = jobs.read(job)
        with pipeline.letters() as box:
            ((_, letter),) = box.letters()
            assert (known["state"], known["letter"], letter.key) == ("waiting", letter.id, job)
            box.purge(ids=[letter.id])
        model.model.letters.close()
        model.model._engine.store.close()  # its server goes away before this process does
    assert pipeline.provider.count == 0


@pytest.mark.e2e
def test_an_outage_at_two_in_the_afternoon(pipeline: Pipeline):
    """Pages that come in while the provider throws 503s, then hangs: each is answered in the end, once, some of them late."""
    numbers = [f"2026-2{index:02}" for index in range(6)]
    pipeline.provider.schedule(*[Fault.status(503)] * 5)
    pipeline.provider.always(Fault.hang())
    uploaded = {number: pipeline.upload(number) for number in numbers}
    for job in uploaded.values():
        assert pipeline.ended(job, "waiting", "done")["state"] == "waiting"
    assert all(pipeline.asked(number) <= ATTEMPTS for number in numbers)
    pipeline.provider.always(Fault.ok())
    fresh = pipeline.upload("2026-299")  # which may find the circuit open still
    pipeline.ended(fresh, "done", "waiting")
    with pipeline.replaying():
        assert all(pipeline.ended(job, "done")["late"] for job in uploaded.values())
        pipeline.ended(fresh, "done")
    assert {pipeline.asked(number, "ok") for number in [*numbers, "2026-299"]} == {1}
    with pipeline.letters() as box:
        assert box.letters() == []


@pytest.mark.e2e
def test_a_job_that_is_delivered_twice_is_answered_once(pipeline: Pipeline):
    """While it is worked at and after it has ended, another message for the same job asks nobody."""
    pipeline.provider.always(Fault.slow(0.3))
    job = pipeline.upload("2026-104")
    pipeline.provider.wait_for(1)
    pipeline.deliver(job)
    pipeline.ended(job, "done")
    pipeline.deliver(job)
    after = pipeline.upload("2026-105")  # whose message is behind that one
    pipeline.ended(after, "done")
    assert (pipeline.asked("2026-104"), pipeline.job(job)["attempts"]) == (1, 1)
    with pipeline.redis.client() as redis:
        assert redis.hmget(f"pipeline:job:{job}", "state", "tries") == [b"done", b"1"]


@pytest.mark.e2e
def test_a_worker_that_was_killed_between_state_and_letter(pipeline: Pipeline):
    """A job that waits, and has no letter yet, gets one when its message comes again, and only one; nobody is asked."""
    job = "0" * 32
    known = {"state": "waiting", "text": "Invoice 2026-108", "reason": "overloaded"}
    with pipeline.redis.client() as redis, pipeline.letters() as box:
        redis.hset(f"pipeline:job:{job}", mapping=known)
        for _ in range(2):
            pipeline.deliver(job)
        until(lambda: redis.hexists(f"pipeline:job:{job}", "letter"), 10)
        after = pipeline.upload("2026-109")
        pipeline.ended(after, "done")
        ((_, letter),) = box.letters()
        assert letter.key == job
        box.purge(ids=[letter.id])
    assert pipeline.provider.count == 1


@pytest.mark.e2e
def test_a_killed_worker_loses_no_job(pipeline: Pipeline):
    """SIGKILL in the middle of the question: another worker takes the job over, on what is left of its attempts."""
    pipeline.provider.always(Fault.hang())
    job = pipeline.upload("2026-106")
    pipeline.provider.wait_for(1)
    pipeline.worker.kill()
    pipeline.worker.wait()
    assert pipeline.job(job)["state"] == "running"
    pipeline.provider.always(Fault.ok())
    pipeline.worker = pipeline.start_worker()
    told = pipeline.ended(job, "done", within=60)
    assert pipeline.asked("2026-106") == 2
    assert told["attempts"] == 3  # the two that the killed try had reserved, and one


def test_a_real_scan_without_tesseract_fails_by_name(monkeypatch: pytest.MonkeyPatch):
    """Where tesseract is missing and a page carries no fixture, the error names the package; one that does is read by it."""
    monkeypatch.setenv("TESSERACT", "not-installed")
    page = draw("2026-107", "240.00")
    assert reading.read(page).by == "fixture"
    assert "Invoice 2026-107" in reading.read(page).text
    scanned = BytesIO()
    Image.open(BytesIO(page)).save(scanned, "PNG")  # which leaves text chunks out
    with pytest.raises(reading.UnreadableError, match="apt-get install tesseract-ocr"):
        reading.read(scanned.getvalue())


@pytest.mark.system("tesseract-ocr")
def test_a_page_is_read_by_tesseract():
    """Real OCR finds number and total on the drawn page, and says who read it."""
    text, by = reading.read(draw("2026-110", "317.45"))
    assert by == "tesseract"
    assert "2026-110" in text and "317.45" in text
    with pytest.raises(reading.UnreadableError, match="upload a PNG"):
        reading.read(b"no image")
