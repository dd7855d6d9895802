"""The streams and consumers of one agent: made by us, never by a server's defaults, and read back.

A server that does not know a field drops it without a word, and then takes schedules that never fire: only what is
read back counts.
"""

from typing import Any

from jobmaster.model.errors import UnsafeStore
from jobmaster_agents.nats import api
from jobmaster_agents.nats.api import ApiError
from jobmaster_agents.nats.connection import Link
from jobmaster_agents.nats.subjects import EXPIRY_CONSUMER, PRIORITIES, Subjects

MESSAGE_BYTES = 1_048_576
BURST_BYTES = 8 * MESSAGE_BYTES
"""What one request may bring: a server cuts off whom it would have to send more at once than its `max_pending`, 64 MiB
unless set, and who asks again for the same would be cut off again."""
MOST_PENDING = 20_000
"""Deliveries of one consumer that may wait for their acknowledgement; the server's own 1,000 stop a lane in silence."""
MOST_WAITING = 512
DEDUPLICATION_NS = 100_000_000
"""Identity is decided by compare-and-set, never by a window: as short as the server allows."""

_STORED = {"storage": "file", "max_msgs": -1, "max_bytes": -1, "max_age": 0, "duplicate_window": DEDUPLICATION_NS}


def stream_configs(subjects: Subjects, *, replicas: int, retention: str) -> list[dict[str, Any]]:
    """What each stream has to be."""
    common = {**_STORED, "num_replicas": replicas, "max_msg_size": MESSAGE_BYTES, "allow_direct": True}
    return [
        {
            **common,
            "name": subjects.jobs_stream,
            "subjects": [subjects.jobs, subjects.expiries],
            "retention": retention,
            "discard": "old",
            "allow_msg_schedules": True,
            "allow_rollup_hdrs": True,
            "allow_atomic": True,
            "republish": {"src": subjects.jobs, "dest": subjects.wakes, "headers_only": True},
        },
        # No age limit: what the master has not read yet must not vanish while it is away.
        {
            **common,
            "name": subjects.out_stream,
            "subjects": [subjects.outs],
            "retention": "limits",
            "discard": "new",
            "allow_atomic": True,
            "republish": {"src": subjects.outs, "dest": subjects.endings, "headers_only": True},
        },
        {
            **common,
            "name": subjects.ctl_stream,
            "subjects": [subjects.ctls],
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
        },
    ]


async def ensure_streams(link: Link, configs: list[dict[str, Any]]) -> None:
    """Make those that are missing. Raises `UnsafeStore` where a server kept something else than was asked."""
    for config in configs:
        name = config["name"]
        try:
            answer = await api.call(link, f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.code != api.NOT_FOUND:
                raise
            answer = await _create(link, config)
        for drift in drifts(config, answer["config"]):
            raise UnsafeStore(f"stream {name}", *drift)


async def _create(link: Link, config: dict[str, Any]) -> dict[str, Any]:
    name = config["name"]
    try:
        return await api.call(link, f"STREAM.CREATE.{name}", config)
    except ApiError as error:
        # Somebody made it in between, and differently.
        if error.error_code != api.STREAM_NAME_IN_USE:
            raise
        return await api.call(link, f"STREAM.INFO.{name}")


def drifts(wanted: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, object, str, str]]:
    """Per setting that differs: (setting, found, remedy, otherwise)."""
    return [
        (
            setting,
            found.get(setting),
            f"it should be {value!r}: edit the stream, or use a server of at least 2.12.7",
            "jobs could be lost or never come due",
        )
        for setting, value in wanted.items()
        if found.get(setting, _ABSENT.get(type(value))) != value
    ]


_ABSENT: dict[type, object] = {bool: False, int: 0, str: ""}
"""What a field that the server leaves out means."""


class Consumers:
    """The consumers of the lanes, one per priority, made once and before the lane's first job: a message that no
    consumer hears of is invisible."""

    def __init__(self, link: Link, subjects: Subjects, *, ack_wait_ns: int, replicas: int) -> None:
        self._link = link
        self._subjects = subjects
        self._ack_wait_ns = ack_wait_ns
        self._replicas = replicas
        self._made: set[str] = set()

    async def ensure(self, lanes: set[str]) -> None:
        """After it, jobs of these lanes can be fetched."""
        for lane in sorted(lanes - self._made):
            for priority in PRIORITIES:
                await self._make(self._subjects.consumer(lane, priority), self._subjects.lane(lane, priority))
            await self._make(self._subjects.waiting_consumer(lane), self._subjects.waiting_in(lane))
            self._made.add(lane)

    def forget(self) -> None:
        """Look at all of them again: somebody may have removed one."""
        self._made.clear()

    async def ensure_expiry(self) -> None:
        """After it, jobs past their time can be asked for."""
        await self._make(EXPIRY_CONSUMER, self._subjects.expired)

    async def _make(self, name: str, subject: str) -> None:
        stream = self._subjects.jobs_stream
        config = {
            "durable_name": name,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": self._ack_wait_ns,
            "max_deliver": -1,
            "max_ack_pending": MOST_PENDING,
            "max_waiting": MOST_WAITING,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "num_replicas": self._replicas,
        }
        answer = await api.call(
            self._link, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", stream_name=stream, config=config
        )
        for drift in drifts(config, answer["config"]):
            raise UnsafeStore(f"consumer {name} of stream {stream}", *drift)
