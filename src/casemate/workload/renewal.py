"""Keep a session alive while its program runs, and notice when it may not go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from casemate.errors import CasemateError, RefusedError
from casemate.workload.session import AttestedSession

__all__ = ["CERTIFICATE_RENEWAL", "RETRY", "Renewal"]

RETRY = 5.0  # seconds between attempts while a broker is out of reach
CERTIFICATE_RENEWAL = timedelta(minutes=30)  # certificates are good for at most an hour
_SHORTEST = 1.0  # seconds

OnEnd = Callable[[CasemateError], None]
OnCertificate = Callable[[], None]


class Renewal:
    """Renews when half of the shortest token's life is over. One refusal ends the program; a broker out of reach does
    so only when a token has run out, since nothing has been withdrawn until then."""

    def __init__(
        self,
        session: AttestedSession,
        *,
        names: tuple[str, ...],
        on_certificate: OnCertificate,
        on_end: OnEnd,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session, self._names = session, names
        self._on_certificate, self._on_end = on_certificate, on_end
        self._clock = clock
        self._stop = threading.Event()
        self._certificate_due = clock() + CERTIFICATE_RENEWAL
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the renewal; an exchange under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        delay = self._until_due()
        while not self._stop.wait(delay):
            try:
                self._renew()
            except RefusedError as exc:
                return self._end(exc)
            except CasemateError as exc:
                expires = self._session.expires
                if expires is None or self._clock() >= expires:
                    return self._end(exc)
                delay = min(RETRY, self._until_due() or RETRY)
            else:
                delay = self._until_due()
        return None

    def _renew(self) -> None:
        self._session.renew()
        if self._session.certificate is not None and self._clock() >= self._certificate_due:
            self._session.renew_certificate(self._names)
            self._on_certificate()
            self._certificate_due = self._clock() + CERTIFICATE_RENEWAL

    def _end(self, error: CasemateError) -> None:
        if not self._stop.is_set():
            self._on_end(error)

    def _until_due(self) -> float:
        attested, expires = self._session.attested_at, self._session.expires
        if attested is None or expires is None:
            return _SHORTEST
        due = attested + (expires - attested) / 2
        return max(_SHORTEST, (due - self._clock()).total_seconds())
