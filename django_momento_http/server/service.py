"""The API itself: request in, answer out. It knows nothing of sockets."""

import random
import time
from collections.abc import Callable, Mapping

from .faults import Fault, Faults
from .limits import MAX_ITEM, Config, TokenBucket
from .messages import Answer, Delivery, PartialRequest, Refused, ServedRequest
from .store import ItemStore
from .target import read_key, read_target, read_ttl

_NO_CONTENT = Answer(204)
_KEY_NOT_FOUND = Refused(404, "Key Not Found").answer
_TOO_LARGE = Refused(400, f"Key and value may have {MAX_ITEM} bytes together").answer
_NO_MEMORY = Refused(500, "Answers that nobody takes hold all of this server's memory").answer


class Service:
    """A request is admitted by its head, weighed while its body arrives, and answered."""

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
        request = PartialRequest(method)
        try:
            parameters = read_target(request, target)
            may_write = self._authorize(token or parameters.get(b"token", b""))
            request.key = read_key(parameters)
            self._check(request, parameters, may_write=may_write)
            self.weigh(request, length)
        except Refused as refused:
            request.refusal = refused.answer
        return request

    def weigh(self, request: PartialRequest, size: int) -> None:
        """Refuse the request when so many bytes are too large beside its key."""
        if len(request.key) + size > MAX_ITEM:
            request.refusal = _TOO_LARGE

    def answer(self, request: PartialRequest, value: bytes) -> Delivery:
        """Carry out a request whose body has arrived, with the fault that waits for it."""
        fault = self.faults.take(request)
        if fault is None and self.config.fail_rate > self._chance():
            fault = Fault(status=self.config.fail_status, body=b"Failed as --fail-rate asks")
        if fault is None:
            delivery = Delivery(self._perform(request, value), self.config.latency)
        else:
            delivery = self._misbehave(fault, request, value)
        if self._observer is not None:
            self._observer(_record(request, value, delivery))
        return delivery

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
        self, request: PartialRequest, parameters: Mapping[bytes, bytes], *, may_write: bool
    ) -> None:
        if request.method == "PUT":
            request.ttl_seconds = read_ttl(parameters, self.config.max_ttl)
        if request.method != "GET" and not may_write:
            raise Refused(403, "The token may only read")
        if request.cache not in self.store:
            raise Refused(404, "Cache Not Found")
        if self._bucket is not None and not self._bucket.take():
            raise Refused(429, "Too many operations a second")

    def _perform(self, request: PartialRequest, value: bytes) -> Answer:
        if request.refusal is not None:
            return request.refusal
        if request.method == "GET":
            found = self.store.get(request.cache, request.key)
            return _KEY_NOT_FOUND if found is None else Answer(200, found.value, item=found)
        if request.ttl_seconds is None:
            self.store.delete(request.cache, request.key)
        elif not self.store.put(request.cache, request.key, value, request.ttl_seconds):
            return _NO_MEMORY
        return _NO_CONTENT

    def _misbehave(self, fault: Fault, request: PartialRequest, value: bytes) -> Delivery:
        answer = Answer(fault.status or 0, fault.body)
        in_effect = fault.status is None and fault.drop != "before"
        if in_effect or fault.applied or fault.drop == "after":
            true_answer = self._perform(request, value)
            if fault.status is None:
                answer = true_answer
        answer = answer._replace(headers=answer.headers + fault.headers)
        return Delivery(answer, self.config.latency + fault.delay, fault.drop)


def _record(request: PartialRequest, value: bytes, delivery: Delivery) -> ServedRequest:
    status = delivery.answer.status
    hit = status == 200 and request.method == "GET"
    return ServedRequest(
        request.method,
        request.cache,
        request.key,
        request.ttl_seconds,
        0 if delivery.drop else status,
        len(delivery.answer.body if hit else value),
        request.path.decode("ascii", "backslashreplace"),
        time.perf_counter() - request.started + delivery.delay,
    )
