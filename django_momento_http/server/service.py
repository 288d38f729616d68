"""The API itself: request in, answer out. It knows nothing of sockets."""

import random
import time
from collections.abc import Callable, Mapping

from .faults import Fault, Faults
from .limits import MAX_ITEM, Config, TokenBucket
from .messages import Answer, PartialRequest, Refused, Reply, ServedRequest
from .store import ItemStore
from .target import read_key, read_target, read_ttl

_NO_CONTENT = Answer(204)
_KEY_NOT_FOUND = Refused(404, "Key Not Found").answer
_TOO_LARGE = Refused(400, f"Key and value may have {MAX_ITEM} bytes together").answer
_NO_MEMORY = Refused(500, "Answers that nobody takes hold all of this server's memory").answer


class Service:
    """A request is admitted by its head, weighed while its body arrives, and replied to."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        observer: Callable[[ServedRequest], object] | None = None,
    ) -> None:
        self.config = config
        self.store = ItemStore(config.caches, clock, config.max_memory)
        self.faults = Faults()
        self._bucket = TokenBucket(config.ops_per_second, clock) if config.ops_per_second else None
        self._chance = chance
        self._observer = observer

    def admit(self, method: str, target: bytes, token: bytes, length: int) -> PartialRequest:
        """Read a request's head; ``refusal`` is set where it already decides the answer."""
        exchange = PartialRequest(method)
        try:
            parameters = read_target(exchange, target)
            may_write = self._authorize(token or parameters.get(b"token", b""))
            exchange.key = read_key(parameters)
            self._check(exchange, parameters, may_write=may_write)
            self.weigh(exchange, length)
        except Refused as refused:
            exchange.refusal = refused.answer
        return exchange

    def weigh(self, exchange: PartialRequest, size: int) -> None:
        """Refuse the request when so many bytes are too large beside its key."""
        if len(exchange.key) + size > MAX_ITEM:
            exchange.refusal = _TOO_LARGE

    def reply(self, exchange: PartialRequest, value: bytes) -> Reply:
        """Carry out a request whose body has arrived, with the fault that waits for it."""
        fault = self.faults.take(exchange)
        if fault is None and self.config.fail_rate > self._chance():
            fault = Fault(status=self.config.fail_status, body=b"Failed as --fail-rate asks")
        if fault is None:
            reply = Reply(self._perform(exchange, value), self.config.latency)
        else:
            reply = self._misbehave(fault, exchange, value)
        if self._observer is not None:
            self._observer(_record(exchange, value, reply))
        return reply

    def _authorize(self, token: bytes) -> bool:
        """Say whether the token may write; Refused when it may not even read."""
        text = token.decode(errors="replace")
        if not text:
            raise Refused(401, "A token is needed, in the Authorization header or as token")
        if text == self.config.read_only_token:
            return False
        if self.config.token not in (None, text):
            raise Refused(401, "The token is not valid")
        return True

    def _check(
        self, exchange: PartialRequest, parameters: Mapping[bytes, bytes], *, may_write: bool
    ) -> None:
        if exchange.method == "PUT":
            exchange.ttl_seconds = read_ttl(parameters, self.config.max_ttl)
        if exchange.method != "GET" and not may_write:
            raise Refused(403, "The token may only read")
        if exchange.cache not in self.store:
            raise Refused(404, "Cache Not Found")
        if self._bucket is not None and not self._bucket.take():
            raise Refused(429, "Too many operations a second")

    def _perform(self, exchange: PartialRequest, value: bytes) -> Answer:
        if exchange.refusal is not None:
            return exchange.refusal
        if exchange.method == "GET":
            found = self.store.get(exchange.cache, exchange.key)
            return _KEY_NOT_FOUND if found is None else Answer(200, found.value, item=found)
        if exchange.ttl_seconds is None:
            self.store.delete(exchange.cache, exchange.key)
        elif not self.store.put(exchange.cache, exchange.key, value, exchange.ttl_seconds):
            return _NO_MEMORY
        return _NO_CONTENT

    def _misbehave(self, fault: Fault, exchange: PartialRequest, value: bytes) -> Reply:
        answer = Answer(fault.status or 0, fault.body)
        in_effect = fault.status is None and fault.drop != "before"
        if in_effect or fault.applied or fault.drop == "after":
            true_answer = self._perform(exchange, value)
            if fault.status is None:
                answer = true_answer
        answer = answer._replace(headers=answer.headers + fault.headers)
        return Reply(answer, self.config.latency + fault.delay, fault.drop)


def _record(exchange: PartialRequest, value: bytes, reply: Reply) -> ServedRequest:
    status = reply.answer.status
    hit = status == 200 and exchange.method == "GET"
    return ServedRequest(
        exchange.method,
        exchange.cache,
        exchange.key,
        exchange.ttl_seconds,
        0 if reply.drop else status,
        len(reply.answer.body if hit else value),
        exchange.path.decode("ascii", "backslashreplace"),
        time.perf_counter() - exchange.started + reply.delay,
    )
