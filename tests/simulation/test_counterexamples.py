"""Each trace that a model of the protocol has found, in a design of before or without one of its rules, as a story.

The names are those of the models' tables (create-protocol, section 11).
"""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.cloud import CloudRules
from tests.simulation.faults import Fault
from tests.simulation.stories import FENCE, HOUR, Story, budget, request, tell
from tests.simulation.world import Violation

NO_ECHO = CloudRules(echo=False)


# --- creates: designs of before ------------------------------------------------------------------------------------


def test_an_unmarked_job_of_the_same_place_is_not_ours() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0, "1")) == "CREATE_OUTCOME_UNKNOWN"
        it.others_make(request(0, "1-2"))
        assert await it.repeat(it.r0, request(0, "1")) == "d0001"

    tell(story, Fault("lost"))


def test_the_first_match_of_a_list_does_not_beat_the_marker() -> None:
    async def story(it: Story) -> None:
        it.others_make(request(0, "1"))
        first = await it.ask(it.r0, request(0, "1"))
        it.others_make(request(0, "1"))
        assert first in {"CREATE_OUTCOME_UNKNOWN", "d0001"}
        assert await it.repeat(it.r0, request(0, "1")) == "d0001"

    tell(story, Fault("reply lost"))


@pytest.mark.parametrize("exclusive", [False, True])
def test_without_echo_the_job_of_another_caller_at_one_output_is_not_taken(exclusive: bool) -> None:  # noqa: FBT001
    async def story(it: Story) -> None:
        mine, others = await asyncio.gather(
            it.ask(it.r0, request(0, "1"), caller="alice", seconds=20), it.ask(it.r1, request(0, "1-2"), caller="bob")
        )
        assert (mine, others) == ("CREATE_OUTCOME_UNKNOWN", "d0000")
        await asyncio.sleep(FENCE)
        assert await it.repeat(it.r0, request(0, "1")) in {"d0001", "CREATE_OUTCOME_AMBIGUOUS"}

    tell(story, Fault("lost"), cloud=NO_ECHO, exclusive=exclusive)


def test_an_empty_page_is_not_the_end_of_a_list() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) in {"CREATE_OUTCOME_UNKNOWN", "d0000"}
        assert await it.repeat(it.r1, request()) == "d0000"
        assert it.jobs == 1

    tell(story, Fault("reply lost"), *(Fault("page-empty") for _ in range(6)))


@pytest.mark.parametrize("jump", [-25 * HOUR, 25 * HOUR])
def test_a_jump_of_the_wall_clock_forgets_nothing(jump: float) -> None:
    async def story(it: Story) -> None:
        it.r0.wall.time += jump
        assert await it.ask(it.r0, request()) == "d0000"
        it.r1.wall.time += jump
        await asyncio.sleep(HOUR)
        assert await it.ask(it.r1, request()) == "d0000"

    tell(story, pace=20.0)


def test_an_emptied_store_makes_no_second_job() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        it.world.empty_store()
        assert await it.ask(it.r0, request()) == "LEDGER_UNAVAILABLE"
        assert await it.repeat(it.r1, request()) == "d0000"

    tell(story)


# --- creates: without one rule -------------------------------------------------------------------------------------


def test_before_the_fence_an_attempt_in_a_queue_is_not_absent() -> None:
    async def story(it: Story) -> None:
        sent = asyncio.ensure_future(it.ask(it.r1, request(), seconds=60))
        await asyncio.sleep(1)
        await it.ask(it.r0, request(), seconds=30)
        await sent
        assert await it.repeat(it.r0, request()) == "d0000"

    tell(story, Fault("queue", value=25))


def test_one_wrong_date_beside_the_own_waiting_time_proves_no_absence() -> None:
    async def story(it: Story) -> None:
        sent = asyncio.ensure_future(it.ask(it.r1, request(), seconds=60))
        await asyncio.sleep(1)
        it.world.faults.add(Fault("date", value=5 * HOUR))
        await it.ask(it.r0, request(), seconds=30)
        await sent
        assert await it.repeat(it.r0, request()) == "d0000"

    tell(story, Fault("queue", value=25))


def test_a_create_that_was_signed_ahead_and_comes_late_is_not_absent_after_the_own_waiting_time() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(1), caller="bob") == "d0000"
        assert await it.ask(it.r1, request(1), caller="bob") == "d0000"
        it.world.faults.add(Fault("date", value=HOUR))
        it.world.faults.add(Fault("late", value=HOUR))
        # The Date of this read is an hour ahead, and so is the signature of what follows.
        await it.r1.creates._history.hear(it.world.bucket)
        assert await it.ask(it.r1, request(), seconds=20) == "CREATE_OUTCOME_UNKNOWN"
        for _ in range(20):
            await it.ask(it.r0, request())
            await asyncio.sleep(FENCE)
        assert await it.repeat(it.r0, request()) == "d0001"

    tell(story, pace=20.0)


def test_a_list_that_was_cut_proves_no_absence() -> None:
    async def story(it: Story) -> None:
        answer = await it.ask(it.r0, request())
        for _ in range(20):
            if answer == "d0000":
                break
            answer = await it.ask(it.r0, request())
            await asyncio.sleep(20)
        it.world.faults.end()
        assert await it.repeat(it.r0, request()) == "d0000"

    tell(story, Fault("reply lost"), *(Fault("page-cut") for _ in range(80)))


def test_one_wrong_date_forgets_no_record() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        for _ in range(6):
            await asyncio.sleep(HOUR / 2)
            assert await it.ask(it.r1, request()) == "d0000"

    tell(story, Fault("date", passes=5, value=48 * HOUR), pace=10.0)


def test_without_echo_and_without_a_place_of_our_own_no_job_is_adopted() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "CREATE_OUTCOME_UNKNOWN"
        await asyncio.sleep(20)
        it.others_make(request())
        await asyncio.sleep(FENCE)
        assert await it.repeat(it.r0, request()) == "CREATE_OUTCOME_AMBIGUOUS"

    tell(story, Fault("lost"), cloud=NO_ECHO)


def test_two_replicas_that_conclude_absence_at_once_send_once() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "CREATE_OUTCOME_UNKNOWN"
        for _ in range(20):
            await asyncio.gather(*(it.ask(replica, request(), seconds=25) for replica in (it.r0, it.r1)))
        assert it.jobs == 1

    tell(story, Fault("lost"))


@pytest.mark.parametrize("times", [1, 2])
def test_after_a_loss_the_scan_waits_for_what_is_not_listed_yet(times: int) -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r1, request()) in {"CREATE_OUTCOME_UNKNOWN", "d0000"}
        for _ in range(times):
            it.world.empty_store()
            await asyncio.sleep(90)
        assert await it.repeat(it.r0, request()) == "d0000"
        assert await it.repeat(it.r1, request()) == "d0000"

    tell(story, Fault("reply lost"))


def test_a_killed_replica_waits_anew_before_it_rebuilds() -> None:
    async def story(it: Story) -> None:
        asking = asyncio.ensure_future(it.ask(it.r1, request(), seconds=30))
        await asyncio.sleep(2)
        it.world.empty_store()
        it.r0.life.kill()
        await asking
        assert await it.repeat(it.r0, request()) == "d0000"

    tell(story, Fault("late", value=40))


# --- creates: assumptions, each needed: the world notices when one does not hold -------------------------------------


def test_a_cloud_that_accepts_late_requests_breaks_the_promises() -> None:
    async def story(it: Story) -> None:
        await it.ask(it.r0, request(), seconds=20)
        await it.repeat(it.r0, request())
        await asyncio.sleep(HOUR)

    with pytest.raises(Violation, match=r"ABSENT|TWICE"):
        tell(story, Fault("late", value=HOUR), cloud=CloudRules(judges=False), settles=False)


def test_a_list_that_lags_longer_than_promised_breaks_the_promises() -> None:
    async def story(it: Story) -> None:
        await it.ask(it.r0, request(), seconds=20)
        await it.repeat(it.r0, request())

    with pytest.raises(Violation, match=r"ABSENT|TWICE"):
        tell(story, Fault("reply lost"), cloud=CloudRules(least_lag=HOUR), settles=False)


# --- budgets: designs of before ------------------------------------------------------------------------------------


def test_outages_of_two_replicas_spend_one_budget() -> None:
    async def story(it: Story) -> None:
        assert (await it.ask(it.r0, request(0))).startswith("d0")
        assert (await it.ask(it.r1, request(1))).startswith("d0")
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        it.cut_off(it.r1)
        for number in range(2, 12):
            await it.ask(it.r0, request(number, has_id=False))
            await it.ask(it.r1, request(number + 20, has_id=False))
        assert 3 <= it.jobs <= 4

    tell(story, alice=budget(4, outage_pages=2))


def test_a_flapping_store_spends_one_budget() -> None:
    async def story(it: Story) -> None:
        for number in range(30):
            await it.ask(it.r0, request(number, has_id=number % 2 == 0))
            if number % 3 == 0:
                it.cut_off(it.r0, 5.0 + number)
            await asyncio.sleep(7)
        assert 3 <= it.jobs <= 5

    tell(story, alice=budget(5, outage_pages=3))


def test_on_a_full_disk_nothing_is_sent_uncounted() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        assert await it.ask(it.r0, request(1, has_id=False)) == "LIMITER_UNAVAILABLE"
        assert it.jobs == 1

    tell(story, Fault("journal fails"), alice=budget(4, outage_pages=2))


def test_an_id_that_was_forgotten_and_used_again_is_counted_again() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        answers = ["d0000"]
        while len(answers) < 20 and answers[-1].startswith("d0"):
            await asyncio.sleep(HOUR)
            answers.append(await it.ask(it.r1, request()))
        assert list(dict.fromkeys(answers)) == ["d0000", "d0001", "PAGE_BUDGET_EXHAUSTED"]

    tell(story, alice=budget(2), keep=HOUR, pace=20.0)


def test_an_emptied_store_counts_its_pages_anew() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        it.world.empty_store()
        await asyncio.sleep(2 * FENCE)
        assert await it.ask(it.r1, request(1)) == "PAGE_BUDGET_EXHAUSTED"

    tell(story, alice=budget(1))


# --- budgets: without one rule -------------------------------------------------------------------------------------


def test_a_lease_ends_after_its_term() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        it.world.empty_store()
        await asyncio.sleep(70)
        assert await it.ask(it.r0, request(1, has_id=False)) == "LIMITER_UNAVAILABLE"

    tell(story, alice=budget(2, outage_pages=1))


def test_what_a_lease_of_a_lost_store_pays_is_counted_before_the_store_is_whole_again() -> None:
    """The lease goes on for its term after the loss; its job may be accepted late, and be listed late."""

    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        it.world.empty_store()
        await asyncio.sleep(42)
        assert await it.ask(it.r0, request(1, has_id=False)) in {"CREATE_OUTCOME_UNKNOWN", "d0001"}
        for number in range(2, 40):
            await it.ask(it.r1, request(number))
            await asyncio.sleep(5)
        assert it.jobs == 2

    tell(
        story,
        Fault("late", passes=1, value=40),
        cloud=CloudRules(least_lag=59, skew=-50),
        alice=budget(2, outage_pages=1),
    )


def test_a_hand_over_whose_answer_is_lost_counts_once() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        assert await it.ask(it.r0, request(1, has_id=False)) == "d0001"
        it.reach(it.r0)
        await asyncio.sleep(60)

    tell(story, Fault("fail after hand_over"), Fault("fail after hand_over", passes=1), alice=budget(3, outage_pages=1))


def test_a_dead_lease_is_given_back_after_what_it_paid_is_listed() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        assert await it.ask(it.r0, request(1, has_id=False)) in {"CREATE_OUTCOME_UNKNOWN", "d0001"}
        it.r0.life.kill()
        it.r0.wipe()
        for number in range(2, 40):
            await it.ask(it.r1, request(number))
            await asyncio.sleep(10)
        assert it.jobs == 2

    tell(story, Fault("late", passes=1, value=40), alice=budget(2, outage_pages=1))
