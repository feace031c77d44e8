"""What a request is refused with: a status of HTTP and one line that says why."""

from __future__ import annotations

from patchcut.errors import BundleError, EngineError, OptionError, PatchcutError


class Refusal(Exception):
    """A request that is not answered with a result.

    Args:
        status: of HTTP, such as 429.
        error: its words.
        reason: in which count of `patchcut_refused_total` it is.
        retry_after_s: when to ask again; None where that would not help.
    """

    def __init__(
        self, status: int, error: PatchcutError, reason: str = "bad request", retry_after_s: int | None = None
    ) -> None:
        super().__init__(str(error))
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the answer has besides."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def bad_request(where: str, what: str, remedy: str = "") -> Refusal:
    """Status 400.

    Examples:
        >>> str(bad_request("query", "has no such word", "leave it out"))
        '[query] has no such word; leave it out'
    """
    return Refusal(400, OptionError(where, what, remedy))


def too_large(where: str, what: str, remedy: str) -> Refusal:
    """Status 413.

    Examples:
        >>> too_large("body", "has 2 bytes, more than 1", "send less").status
        413
    """
    return Refusal(413, PatchcutError(where, what, remedy), "too large")


def try_later(where: str, what: str, reason: str, seconds: int) -> Refusal:
    """Status 429, with the number of seconds after which to ask again.

    Examples:
        >>> try_later("queue", "is full", "queue full", 2).headers
        {'Retry-After': '2'}
    """
    return Refusal(429, PatchcutError(where, what, f"ask again in {seconds} s"), reason, seconds)


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that an error of a request's work is; None for one that nobody foresaw.

    A picture or an option is the caller's, 400; an engine or a bundle is the server's, 503.

    Examples:
        >>> refusal_of(OptionError("head", "is none")).status
        400
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MemoryError):
        return too_large("frame", "does not fit in memory when it is segmented", "scale it down")
    if isinstance(error, EngineError | BundleError):
        return Refusal(503, error, "engine")
    if isinstance(error, PatchcutError):
        return Refusal(400, error)
    return None
