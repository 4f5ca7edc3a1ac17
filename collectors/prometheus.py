"""The Prometheus source: read what dcgm-exporter left with any server that speaks Prometheus' API.

Raw samples are read with their own times (an instant query of a range selector): nothing is filled in for a series
that went away, and no grid moves a measurement. The library makes the connection and asks the small questions; the
bulk is cut out of the response by msgspec and read by polars, which is many times faster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from time import sleep
from typing import Any

import msgspec
import polars as pl
import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from collectors.metrics import BY_NAME
from collectors.prometheus_rows import Memory, Reader, Readings, no_samples
from collectors.prometheus_settings import PrometheusSettings
from collectors.xid_gauge import XidMemory, nothing_told
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import BadInput, SourceFailed, SourceUnavailable
from fleet.frames import UTC_MICROSECONDS

_OK, _TOO_MANY_REQUESTS, _SERVER_ERROR = 200, 429, 500
_REFUSED = frozenset({401, 403})
_TOO_MUCH = frozenset({413, 422})
_FEWEST = timedelta(minutes=1)
# So many samples at once are held in memory without care; more make the next requests shorter.
_COMFORTABLE = 2_000_000
# An answer that misses a store keeps the watermark back, for so long at most.
_HELD_BACK = timedelta(hours=6)


class _TooMuch(Exception):
    """The server will not answer this much at once."""


class _NotNow(Exception):
    """The server did not answer, and may when it is asked again."""


class _TooSlow(_NotNow):
    """The server began to answer and did not come to an end."""


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: msgspec.Raw = msgspec.Raw(b"[]")


class _Result(msgspec.Struct):
    result: list[_Series] = []


class _Answer(msgspec.Struct):
    status: str
    data: _Result = msgspec.field(default_factory=_Result)
    warnings: list[str] = []
    error: str = ""
    error_type: str = msgspec.field(name="errorType", default="")
    is_partial: bool = msgspec.field(name="isPartial", default=False)


class PrometheusSource:
    """A Prometheus-compatible server as a `Source`: GPU and MIG samples and XIDs since the last reading."""

    def __init__(
        self,
        settings: PrometheusSettings,
        clock: Clock,
        cluster: str,
        wait: Callable[[float], None] = sleep,
        told: Callable[[], Mapping[str, int]] = nothing_told,
    ) -> None:
        """`told` gives the last XID that is stored of each GPU, so that a restart tells none twice."""
        if settings.url is None:
            message = "[collect.prometheus] url: name the server, such as http://prometheus:9090"
            raise BadInput(message, field="collect.prometheus.url")
        self._settings, self._clock, self._wait = settings, clock, wait
        self._url = settings.url.rstrip("/")
        self._reader = Reader(cluster, self.name, Memory(xids=XidMemory(told)))
        self._session = _session(settings)
        auth = self._session.auth
        self._connection = PrometheusConnect(
            self._url, session=self._session, timeout=settings.timeout_s, retry=0, auth=auth
        )

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return f"prometheus:{self._url}"

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        """Yield one batch a chunk of time, each with its watermark, so that what was stored is not read again.

        Raises `SourceFailed` where the server does not answer; what was yielded before stays good.
        """
        end = until.astimezone(UTC)
        first = end - timedelta(seconds=self._settings.backfill_s)
        start = first if since is None else since - timedelta(seconds=self._settings.overlap_s)
        span = timedelta(seconds=self._settings.chunk_s)
        held: datetime | None = None
        while start < end:
            stop = min(start + span, end)
            try:
                answer, lag = self._read(start, stop)
            except _TooMuch as error:
                if span <= _FEWEST:
                    message = f"{self._url}: even {span.total_seconds():g} s are too much for the server: {error}"
                    raise SourceFailed(message) from error
                span = max(_FEWEST, (stop - start) / 2)
                continue
            readings, troubles = _readings(answer), self._troubles(answer, lag)
            if _is_partial(answer) and held is None:
                held = max(start, first if since is None else since)
            before = self._reader.memory.copy()
            frames, rejected = self._reader.frames_of(readings)
            is_stored = False
            try:
                yield Batch(self.name, frames, _mark(stop, end, lag, held), (*troubles, *rejected))
                is_stored = True
            finally:
                if not is_stored:
                    self._reader.memory = before
            if readings.samples.height > _COMFORTABLE:
                span = max(_FEWEST, (stop - start) * (_COMFORTABLE / readings.samples.height))
            # One sample of before is read again, so that a change across the border is seen.
            start = stop if stop == end else stop - min(timedelta(seconds=self._settings.overlap_s), span / 2)

    def read(self, start: datetime, stop: datetime) -> Readings:
        """Return the raw samples of `(start, stop]`, in one request."""
        return _readings(self._read(start, stop)[0])

    def metric_names(self) -> list[str]:
        """Return which of our metrics the server has now, by name."""
        found = self._connection.custom_query(f"count by (__name__) ({self._selector()})")
        return sorted(each["metric"]["__name__"] for each in found)

    def _read(self, start: datetime, stop: datetime) -> tuple[_Answer, timedelta]:
        """Return the samples of `(start, stop]` and how far the server's clock is behind ours."""
        names = list(BY_NAME)
        try:
            return self._read_names(names, start, stop)
        except _TooMuch:
            if stop - start > _FEWEST:
                raise
        # A minute is too much: it is the number of series, so they are asked for in parts.
        parts = [self._read_names([name], start, stop) for name in names]
        series = [each for answer, _ in parts for each in answer.data.result]
        warnings = [warning for answer, _ in parts for warning in answer.warnings]
        is_partial = any(answer.is_partial for answer, _ in parts)
        return _Answer("success", _Result(series), warnings, is_partial=is_partial), max(lag for _, lag in parts)

    def _read_names(self, names: Sequence[str], start: datetime, stop: datetime) -> tuple[_Answer, timedelta]:
        span_ms = max(1, round((stop - start).total_seconds() * 1000))
        body = {"query": f"{self._selector(names)}[{span_ms}ms]", "time": f"{stop.timestamp():.3f}"}
        retrying = Retrying(
            stop=stop_after_attempt(self._settings.attempts),
            wait=wait_exponential(multiplier=0.5, max=30),
            retry=retry_if_exception_type(_NotNow),
            sleep=self._wait,
        )
        try:
            answer, date = retrying(self._ask, body)
        except RetryError as error:
            why = error.last_attempt.exception()
            if isinstance(why, _TooSlow) and stop - start > _FEWEST:
                raise _TooMuch(str(why)) from why
            message = f"{self._url} does not answer, {self._settings.attempts} times: {why}"
            raise SourceFailed(message) from why
        return answer, self._lag(date)

    def _ask(self, body: Mapping[str, str]) -> tuple[_Answer, str | None]:
        try:
            response = self._session.post(
                f"{self._url}/api/v1/query", data=dict(body), timeout=self._settings.timeout_s
            )
        except requests.ReadTimeout as error:
            raise _TooSlow(_short(error)) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _NotNow(_short(error)) from error
        except requests.RequestException as error:
            message = f"{self._url} can't be asked: {_short(error)}"
            raise SourceUnavailable(message) from error
        answer = _decode_text(response.content)
        if response.status_code in _REFUSED:
            message = f"{self._url} refuses us ({response.status_code}); check username, password_file and token_file"
            raise SourceFailed(message)
        if response.status_code in _TOO_MUCH:
            raise _TooMuch(answer.error if answer is not None else response.reason)
        if answer is not None and answer.error_type == "timeout":
            raise _TooSlow(answer.error)
        if (
            response.status_code == _TOO_MANY_REQUESTS
            or response.status_code >= _SERVER_ERROR
            or (response.status_code == _OK and answer is None)
        ):
            raise _NotNow(f"{response.status_code} {response.reason}" if answer is None else answer.error)
        if answer is None or answer.status != "success":
            why = f"{response.status_code} {response.reason}" if answer is None else answer.error
            message = f"{self._url} does not answer as Prometheus does: {why}"
            raise SourceFailed(message)
        return answer, response.headers.get("Date")

    def _selector(self, names: Iterable[str] = BY_NAME) -> str:
        narrowed = f",{self._settings.match}" if self._settings.match else ""
        return f'{{__name__=~"{"|".join(names)}"{narrowed}}}'

    def _lag(self, date: str | None) -> timedelta:
        """Return how far the server's clock is behind ours by the date of its answer; zero where it has none."""
        with suppress(TypeError, ValueError):
            return self._clock.now() - parsedate_to_datetime(date or "")
        return timedelta()

    def _troubles(self, answer: _Answer, lag: timedelta) -> tuple[Trouble, ...]:
        told = [*answer.warnings, *(["the answer is partial"] if answer.is_partial else [])]
        troubles = [Trouble("noticed", self._url, warning) for warning in told]
        if abs(lag.total_seconds()) > self._settings.max_skew_s:
            reason = "the server's clock and ours differ; samples of the last minutes may be missed or too new"
            troubles.append(Trouble("noticed", self._url, reason, example=f"{-lag.total_seconds():+.0f} s"))
        return tuple(troubles)


def _mark(stop: datetime, end: datetime, lag: timedelta, held: datetime | None) -> datetime:
    """Return how far all is read: not beyond the server's own time, nor an answer that missed a store."""
    # The date is whole seconds: a second of lag is none.
    mark = min(stop, end - lag) if lag > timedelta(seconds=1) else stop
    return mark if held is None else max(min(mark, held), mark - _HELD_BACK)


def _is_partial(answer: _Answer) -> bool:
    """Tell whether stores did not answer; PromQL's own remarks on a query are no loss."""
    return answer.is_partial or any(not warning.startswith("PromQL") for warning in answer.warnings)


class _Bearer(AuthBase):
    """A token from a file, read anew for each request: Kubernetes renews its tokens in place."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {_secret('token_file', self._path)}"
        return request


class _Basic(AuthBase):
    """A username with a password from a file, read anew for each request."""

    def __init__(self, username: str, path: str | None) -> None:
        self._username, self._path = username, path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return HTTPBasicAuth(self._username, _secret("password_file", self._path))(request)


def _session(settings: PrometheusSettings) -> requests.Session:
    session = requests.Session()
    # On a local network compressing costs the server more than the bytes cost the wire.
    session.headers["Accept-Encoding"] = "identity"
    session.mount("http://", HTTPAdapter(max_retries=0))
    session.mount("https://", HTTPAdapter(max_retries=0))
    if settings.ca_file is not None:
        session.verify = settings.ca_file
    if settings.certificate_file is not None:
        session.cert = (
            settings.certificate_file if settings.key_file is None else (settings.certificate_file, settings.key_file)
        )
    if settings.tenant is not None:
        session.headers["X-Scope-OrgID"] = settings.tenant
    if settings.username is not None:
        _secret("password_file", settings.password_file)
        session.auth = _Basic(settings.username, settings.password_file)
    if settings.token_file is not None:
        _secret("token_file", settings.token_file)
        session.auth = _Bearer(settings.token_file)
    return session


def _secret(field: str, path: str | None) -> str:
    try:
        with open(path or "", encoding="utf-8") as file:  # noqa: PTH123 - a path of the settings, "" included
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"[collect.prometheus] {field}: {path!r} can't be read: {error}"
        raise BadInput(message, field=f"collect.prometheus.{field}") from error


def _decode_text(body: bytes) -> _Answer | None:
    """Return the answer, None where it is not JSON of Prometheus' (an HTML page, or cut off in the middle)."""
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _readings(answer: _Answer) -> Readings:
    """Return the samples of all series as one frame: the text of the pairs is CSV but for its brackets."""
    series, counts, texts = [], [], []
    for each in answer.data.result:
        text = bytes(each.values)
        count = text.count(b"[") - 1
        if count > 0:
            series.append(each.metric)
            counts.append(count)
            texts.append(text)
    if not texts:
        return Readings((), no_samples())
    try:
        frame = _frame(b",".join(texts))
    except pl.exceptions.PolarsError as error:
        message = f"the server's samples are no pairs of time and value: {_short(error)}"
        raise SourceFailed(message) from error
    places = pl.Series("series", range(len(series)), dtype=pl.UInt32())
    lengths = pl.Series("length", counts)
    index = pl.select(places.repeat_by(lengths).explode(empty_as_null=False, keep_nulls=False)).to_series()
    return Readings(series, frame.with_columns(index.alias("series")).select("series", "ts", "value"))


def _frame(text: bytes) -> pl.DataFrame:
    if b" " in text or b"\n" in text:
        text = text.translate(None, b" \n\r\t")
    if b"Inf" in text:
        text = text.replace(b"+Inf", b"inf").replace(b"-Inf", b"-inf")
    plain = text.replace(b"],[", b"\n").translate(None, b'[]"')
    schema = {"second": pl.Float64(), "value": pl.Float64()}
    pairs = pl.read_csv(BytesIO(plain), has_header=False, schema=schema)
    # Prometheus keeps milliseconds; a float of seconds holds them, and rounding gives them back.
    moment = (pl.col("second") * 1000).round().cast(pl.Int64) * 1000
    return pairs.select(moment.cast(UTC_MICROSECONDS).alias("ts"), "value")


def _short(error: Any) -> str:  # noqa: ANN401 - any library's exception
    text = str(error)
    return text if len(text) <= 200 else text[:200] + "..."  # noqa: PLR2004 - a line
