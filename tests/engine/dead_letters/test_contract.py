"""What every box promises, in one file and in Redis alike."""

import threading
from dataclasses import replace

import pytest

from langchain_resilient.engine.dead_letters.box import BoxError
from langchain_resilient.engine.dead_letters.letter import MOST_DELIVERIES, Counts
from langchain_resilient.engine.dead_letters.sealing import Seal
from langchain_resilient.engine.errors import SettingsError
from tests.engine.dead_letters.post import EPOCH, TENANT, ids, letter


def claimed(box, most=10, lease=60.0):
    """The one letter that can be claimed."""
    (found,) = box.claim(most, lease)
    return found


# ── put ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_letter_comes_back_as_it_was_put(place):
    """All of a letter, also letters beyond ASCII and halves of an emoji, is there again in a box that is opened later."""
    odd = letter(
        content={"messages": [{"content": "多谢 🎈 \ud83c \r\n\0\u2028"}], "parameters": {"stop": ["\n"]}}, tenant=None
    )
    assert place().put(odd) == place.kind
    place.boxes[0].close()
    assert place().get(odd.id) == odd


def test_one_letter_for_a_key(box):
    """A second letter of a key is not kept, whatever the state of the first."""
    assert box.put(letter(1))
    for state in ("waiting", "claimed", "parked"):
        assert box.put(letter(2, key="key-1")) is None
        assert [found for found, _ in box.letters()] == [state]
        if state == "waiting":
            held = claimed(box)
        elif state == "claimed":
            box.park(held, "by hand")
    assert ids(box.letters()) == ["id-0001"]


def test_no_letter_for_a_key_that_is_answered(box):
    """A letter whose key has a result already is not kept."""
    box.put(letter(1))
    box.finish(claimed(box), "answer")
    assert not box.put(letter(2, key="key-1"))
    assert box.counts() == Counts(0, 0, 0, 0, None)


def test_an_id_is_one_letters(box):
    """Two letters of one id are a mistake that is told, not a letter that is dropped in silence."""
    box.put(letter(1))
    with pytest.raises(BoxError, match="id-0001"):
        box.put(letter(2, id="id-0001"))
    assert box.put(letter(2))


# ── claim ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_claims_are_oldest_first_and_exclusive(place):
    """Letters are handed out in the order of their age, as many as are asked for, and none to two."""
    box, other = place(), place()
    for number in range(1, 51):
        box.put(letter(number))
    first = box.claim(30, 60.0)
    assert ids(first) == [f"id-{number:04}" for number in range(1, 31)]
    assert ids(other.claim(100, 60.0)) == [f"id-{number:04}" for number in range(31, 51)]
    assert box.claim(1, 60.0) == other.claim(1, 60.0) == []
    assert [found.deliveries for found in first] == [1] * 30
    assert box.counts() == Counts(0, 50, 0, 0, EPOCH - 999)


def test_a_letter_waits_until_it_is_due(place):
    """A letter is not handed out before its moment, whether it was put or given back with one."""
    box, now = place(), place.clock.wall()
    box.put(letter(1, not_before=now + 10))
    assert box.claim(10, 60.0) == []
    place.clock.advance(10)
    held = claimed(box)
    assert held.not_before == now + 10
    box.release(held, now + 30, counted=True)
    place.clock.advance(19)
    assert box.claim(10, 60.0) == []
    place.clock.advance(1)
    assert claimed(box).id == "id-0001"


def test_a_claim_lapses_on_an_idle_box(place):
    """What nobody ended is handed out again when its lease is over, though nothing new came; not an instant before, however short a lease asks."""
    box, other = place(), place()
    box.put(letter(1))
    claimed(box, lease=60.0)
    place.clock.advance(59.9)
    assert other.claim(10, 0.1) == []
    place.clock.advance(0.1)
    again = claimed(other, lease=1.0)
    assert (again.id, again.deliveries) == ("id-0001", 2)


def test_a_lease_is_renewed(place):
    """A claim that is renewed lasts from that moment on."""
    box = place()
    box.put(letter(1))
    held = claimed(box, lease=60.0)
    place.clock.advance(50)
    box.renew([held], 60.0)
    box.renew([], 60.0)
    place.clock.advance(50)
    assert box.claim(10, 60.0) == []
    place.clock.advance(10)
    assert claimed(box).deliveries == 2


def test_a_letter_is_parked_after_its_last_delivery(place):
    """A letter that was handed out five times without an end is parked as poison, and in nobody's way."""
    box = place()
    box.put(letter(1))
    box.put(letter(2, not_before=place.clock.wall() + 301))
    for count in range(1, MOST_DELIVERIES + 1):
        assert claimed(box).deliveries == count
        place.clock.advance(60)
    place.clock.advance(1)
    assert ids(box.claim(1, 60.0)) == ["id-0002"]
    assert box.get("id-0001").parked == "poison"
    assert box.counts() == Counts(0, 1, 1, 0, EPOCH - 998)


def test_deliveries_that_do_not_count(box):
    """A letter that is given back because nobody was asked may be handed out any number of times."""
    box.put(letter(1))
    for _ in range(2 * MOST_DELIVERIES):
        held = claimed(box)
        assert held.deliveries == 1
        box.release(held, 0.0, counted=False)
    assert box.get("id-0001").deliveries == 0
    held = claimed(box)
    box.release(held, 0.0, counted=True)
    assert claimed(box).deliveries == 2


def test_an_answer_ends_every_letter_of_its_key(place):
    """A letter whose key is answered through another letter of that key is gone as well."""
    box = place()
    box.put(letter(1))
    box.put(letter(2))
    # As a process leaves it that still holds a letter which was purged and put again since.
    box.finish(replace(letter(9), key="key-2"), "answer")
    assert ids(box.letters()) == ["id-0001"]
    assert ids(box.claim(10, 60.0)) == ["id-0001"]
    assert box.get("id-0002") is None


def test_two_tenants_may_use_one_key(place):
    """A key is its tenant's: another's letter of the same key is kept too, and neither gets the other's answer."""
    box = place()
    assert box.put(letter(1, key="invoice-42", tenant="acme"))
    assert box.put(letter(2, key="invoice-42", tenant="zeta"))
    assert box.put(letter(3, key="invoice-42", tenant=None))
    assert box.put(letter(4, key="invoice-42", tenant="acme")) is None
    for held in box.claim(3, 60.0):
        assert box.finish(held, f"for {held.tenant}")
    found = {tenant: box.result("invoice-42", tenant) for tenant in ("acme", "zeta", None)}
    assert {tenant: result.value for tenant, result in found.items()} == {
        "acme": "for acme",
        "zeta": "for zeta",
        None: "for None",
    }
    assert found["acme"].key == "invoice-42"
    assert box.result("invoice-42", "other") is None


@pytest.mark.parametrize(
    "damaged", [b'{"v":2,"header":{}}', b"no JSON", b'{"v":1,"id":"x","key":"y","created":[],"kind":"timeout"}']
)
def test_what_can_t_be_read_keeps_no_other(place, monkeypatch, damaged):
    """A letter of another making, or damaged, is listed by its id and put off for a minute, uncounted; the others are handed out; it can be removed."""
    box = place()
    with monkeypatch.context() as patched:
        patched.setattr(box._seal, "written", lambda one: damaged)
        if place.kind == "redis":
            patched.setattr("langchain_resilient.engine.dead_letters.redis.decode", lambda written: (letter(1), None))
        box.put(letter(1))
    box.put(letter(2))
    assert ids(box.letters()) == ["id-0001", "id-0002"]
    assert box.get("id-0001").kind == "unreadable"
    assert ids(box.claim(10, 1.0)) == ["id-0002"]
    place.clock.advance(61)
    assert ids(box.claim(10, 1.0)) == ["id-0002"]
    assert box.get("id-0001").deliveries == 0
    assert box.purge(ids=["id-0001"]) == 1


@pytest.mark.parametrize(("most", "lease"), [(0, 1.0), (1, 0.0)])
def test_a_claim_that_makes_no_sense(box, most, lease):
    """A claim of nothing, or for no time, is refused."""
    with pytest.raises(SettingsError, match="claim"):
        box.claim(most, lease)


# ── the fence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def lapsed(place):
    """A box with one letter, the claim that lapsed, and the one after it; deliveries alone don't tell them apart."""
    box = place()
    box.put(letter(1))
    late = claimed(box)
    place.clock.advance(60)
    box.release(claimed(box), 0.0, counted=False)
    box.release(claimed(box), 0.0, counted=False)
    now = claimed(box)
    assert now.deliveries == 2
    return box, late, now


@pytest.mark.parametrize(
    "act",
    [
        lambda box, held: box.release(held, EPOCH + 1e6, counted=False),
        lambda box, held: box.park(held, "late"),
        lambda box, held: box.renew([held], 1e6),
    ],
    ids=["release", "park", "renew"],
)
def test_a_lapsed_claimant_does_nothing_to_the_next(place, act):
    """Whose claim lapsed and was taken by another can neither give the letter back, nor park it, nor hold it longer."""
    box, late, now = lapsed(place)
    act(box, late)
    assert box.get("id-0001") == now
    place.clock.advance(60)
    assert claimed(box).deliveries == 3


@pytest.mark.parametrize("end", ["release", "park", "renew"])
def test_a_claim_that_lapsed_is_its_claimants_until_somebody_takes_it(place, end):
    """Whose claim lapsed while nobody came may still say what became of the letter."""
    box = place()
    box.put(letter(1))
    held = claimed(box)
    place.clock.advance(61)
    if end == "release":
        box.release(held, place.clock.wall() + 5, counted=False)
        assert box.get("id-0001").deliveries == 0
    elif end == "park":
        box.park(held, "hopeless")
        assert box.get("id-0001").parked == "hopeless"
    else:
        box.renew([held], 60.0)
    assert box.claim(10, 60.0) == []


def test_what_was_given_back_is_no_longer_held(box):
    """After its release or its parking a claim is over: the same letter in the hand does nothing any more."""
    box.put(letter(1))
    held = claimed(box)
    box.release(held, 0.0, counted=False)
    box.park(held, "twice")
    box.release(held, EPOCH + 1e6, counted=False)
    again = claimed(box)
    assert again.deliveries == 1
    box.park(again, "once")
    box.release(again, 0.0, counted=True)
    box.renew([again], 60.0)
    assert box.get("id-0001").parked == "once"
    assert box.claim(10, 60.0) == []


# ── finish ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_finishing_keeps_the_result_and_ends_the_letter(place):
    """One step writes the answer under the key, with its letter and its moment, and removes the letter."""
    box = place()
    box.put(letter(1))
    assert box.result("key-1", TENANT) is None
    assert box.finish(claimed(box), {"content": "多谢\ud83c", "n": [1, None]})
    found = box.result("key-1", TENANT)
    assert (found.key, found.letter, found.value) == ("key-1", "id-0001", {"content": "多谢\ud83c", "n": [1, None]})
    assert found.written == pytest.approx(place.clock.wall())
    assert box.get("id-0001") is None
    assert box.counts() == Counts(0, 0, 0, 0, None)


def test_a_late_answer_counts_unless_one_stands(place):
    """Whose claim lapsed and who has the answer all the same ends the letter; the next claimant's answer is not written."""
    box, late, now = lapsed(place)
    assert box.finish(late, "late")
    assert not box.finish(now, "second")
    assert box.result("key-1", TENANT).value == "late"
    assert box.letters() == []
    box.release(now, 0.0, counted=True)
    assert box.claim(10, 60.0) == []


def test_a_parked_letter_is_ended_by_a_late_answer(box):
    """An answer ends its letter wherever that lies."""
    box.put(letter(1))
    held = claimed(box)
    box.park(held, "slow")
    assert box.finish(held, "answer")
    assert box.counts().parked == 0


def test_results_are_kept_for_their_time(place):
    """A result is there for as long as the box is told to keep it; then its key is free again."""
    box = place(keep=600.0)
    box.put(letter(1))
    box.finish(claimed(box), 1)
    place.clock.advance(599)
    assert box.result("key-1", TENANT).value == 1
    assert not box.put(letter(1))
    place.clock.advance(1)
    assert box.result("key-1", TENANT) is None
    assert box.put(letter(1))
    assert box.finish(claimed(box), 2)
    assert box.result("key-1", TENANT).value == 2


# ── parking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unparking(box):
    """A parked letter waits again, at once, its deliveries counted from 0; others are left alone."""
    box.put(letter(1, not_before=EPOCH))
    held = claimed(box)
    assert not box.unpark("id-0001")
    box.park(held, "by hand")
    assert box.unpark("id-0001")
    assert not box.unpark("id-0001")
    assert not box.unpark("nobody")
    assert box.get("id-0001").parked is None
    assert claimed(box).deliveries == 1


def test_a_letter_without_its_content_stays_parked(place):
    """What could not be kept can't be asked again: it is parked from the start, and stays so."""
    box = place(seal=Seal(most_bytes=10))
    assert box.put(letter(1))
    found = box.get("id-0001")
    assert (found.parked, found.content) == ("too large", None)
    assert not box.unpark("id-0001")
    assert box.claim(10, 60.0) == []
    assert box.counts() == Counts(0, 0, 1, 0, None)


# ── encryption ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_no_key_opens_is_shown_and_put_off(place):
    """A letter of another key is shown without its content, is not handed out, costs no delivery, and is whole for who has the key."""
    from cryptography.fernet import Fernet

    key = Fernet.generate_key().decode()
    place(seal=Seal(keys=[key])).put(letter(1))
    without = place(seal=Seal(keys=[Fernet.generate_key().decode()]))
    without.put(letter(2))
    assert ids(without.claim(10, 60.0)) == ["id-0002"]
    shown = without.get("id-0001")
    assert (shown.content, shown.parked, shown.deliveries) == (None, None, 0)
    assert shown.not_before == pytest.approx(place.clock.wall() + 60)
    place.clock.advance(61)
    having = place(seal=Seal(keys=[key]))
    found = {it.id: it for it in having.claim(10, 60.0)}["id-0001"]
    assert found.content == letter(1).content
    having.finish(found, "secret")
    assert without.result("key-1", TENANT).value is None
    assert having.result("key-1", TENANT).value == "secret"


def test_an_encrypted_letter_may_be_unparked_by_who_has_no_key(place):
    """Its content is there, so it can be asked again by somebody else."""
    from cryptography.fernet import Fernet

    box = place(seal=Seal(keys=[Fernet.generate_key().decode()]))
    box.put(letter(1))
    box.park(claimed(box), "by hand")
    assert place().unpark("id-0001")


# ── looking in ───────────────────────────────────────────────────────────────────────────────────────────────────────


def a_box_of_three_states(place):
    """Letters 1 to 90: every third is parked, every third claimed, every third waits."""
    box = place()
    for number in range(1, 91):
        box.put(letter(number))
    for held in box.claim(90, 60.0):
        number = int(held.id[3:])
        if number % 3 == 0:
            box.park(held, "by hand")
        elif number % 3 == 1:
            box.release(held, 0.0, counted=True)
    return box


@pytest.mark.parametrize(("state", "rest"), [("parked", 0), ("waiting", 1), ("claimed", 2)])
def test_listing_by_state(place, state, rest):
    """A list of one state holds all of that state and no other, oldest first, with the letters themselves."""
    found = a_box_of_three_states(place).letters(state)
    assert {its for its, _ in found} == {state}
    assert ids(found) == [f"id-{number:04}" for number in range(1, 91) if number % 3 == rest]
    assert found[0][1].content is not None


@pytest.mark.parametrize("state", [None, "parked"])
def test_pages(place, state):
    """Pages that follow one another hold everything once, also where the last letter of a page has gone meanwhile."""
    box = a_box_of_three_states(place)
    whole = ids(box.letters(state))
    assert whole == sorted(whole) and len(whole) == {None: 90, "parked": 30}[state]
    seen, after = [], None
    while page := ids(box.letters(state, most=7, after=after)):
        seen += page
        after = page[-1]
        box.purge(ids=[after])
    assert seen == whole


def test_letters_of_one_instant_are_paged_too(box):
    """Letters of the same moment are told apart by their ids."""
    for number in range(1, 6):
        box.put(letter(number, created=EPOCH))
    assert ids(box.letters(most=2)) == ["id-0001", "id-0002"]
    assert ids(box.letters(after="id-0002")) == ["id-0003", "id-0004", "id-0005"]


def test_a_lapsed_claim_waits(place):
    """A letter whose claim lapsed is shown, counted and purged as one that waits."""
    box = place()
    box.put(letter(1))
    claimed(box)
    place.clock.advance(60)
    assert [state for state, _ in box.letters()] == ["waiting"]
    assert box.counts() == Counts(1, 0, 0, 0, EPOCH - 999)
    assert box.purge(state="claimed") == 0
    assert box.purge(state="waiting") == 1


@pytest.mark.parametrize(
    "call", [lambda box: box.letters("lost"), lambda box: box.purge(state="lost")], ids=["letters", "purge"]
)
def test_an_unknown_state(box, call):
    """A state that no letter has is an error that names those there are."""
    with pytest.raises(SettingsError, match="claimed, parked, waiting"):
        call(box)


# ── purge ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_purging(place):
    """Purged is what meets all that is given, and nothing where nothing is given."""
    box = a_box_of_three_states(place)
    with pytest.raises(SettingsError, match="ids, a state, or the moment"):
        box.purge()
    with pytest.raises(SettingsError, match="a list"):
        box.purge(ids="id-0001")
    assert box.purge(ids=["id-0001", "id-0001", "nobody"]) == 1
    assert box.purge(ids=["id-0002", "id-0003"], state="parked", before=EPOCH) == 1
    assert box.purge(ids=["id-0006"], before=letter(6).created) == 0
    assert box.purge(state="parked", before=letter(10).created) == 2  # 6 and 9
    assert box.purge(before=letter(31).created) == 26
    assert box.counts() == Counts(20, 20, 20, 0, EPOCH - 969)
    assert box.purge(before=float("inf")) == 60
    assert box.counts() == Counts(0, 0, 0, 0, None)
    assert box.claim(10, 60.0) == []
    assert box.put(letter(1))


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_threads_share_a_box(place):
    """Threads that put, claim and finish at once on one box lose nothing and get nothing twice."""
    box = place()
    ended, failures = [], []

    def work(part):
        try:
            for number in range(part, 80, 4):
                box.put(letter(number))
                for held in box.claim(3, 60.0):
                    ended.append((held.id, box.finish(held, held.id)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    ended += [(held.id, box.finish(held, held.id)) for held in box.claim(100, 60.0)]
    assert sorted(ended) == [(f"id-{number:04}", True) for number in range(80)]


def test_a_closed_box_says_so(box):
    """What is asked of a closed box is refused, also a letter, and closing twice does no harm."""
    box.close()
    box.close()
    for call in (lambda: box.put(letter(1)), lambda: box.claim(1, 1.0), box.counts):
        with pytest.raises(BoxError, match="closed"):
            call()
