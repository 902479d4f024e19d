"""The pause of a campaign: until when nothing is submitted, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from techforge.policy.retry_after import MAX_RETRY_AFTER

if TYPE_CHECKING:
    from techforge.batch.ledger import Ledger


@frozen
class Pause:
    """The end of a pause, in seconds since 1970 by the ledger's clock, and its reason."""

    until: float
    reason: str


def pause_of(ledger: Ledger) -> Pause | None:
    """Return the pause of a campaign, or None. Workers keep theirs in the ledger, and rows have their own."""
    now = ledger.now()
    state: dict[str, Any] = ledger.get_account_fact("pace") or {}
    outage: dict[str, Any] = state.get("outage") or {}
    pauses = [
        Pause(state.get("paused_until", 0.0), "the API asked for it (Retry-After)"),
        Pause(outage.get("until", 0.0), f"the API does not work ({outage.get('problem')})"),
        Pause(ledger.next_submission() or 0.0, "the pending rows were refused"),
    ]
    return next((pause for pause in pauses if pause.until > now), None)


def paused_until(ledger: Ledger) -> float:
    """Return the end of a pause that an earlier run was asked for. Workers have a shared limiter for it."""
    if ledger.is_shared:
        return 0.0
    state: dict[str, Any] = ledger.get_account_fact("pace") or {}
    until, now = float(state.get("paused_until", 0.0)), ledger.now()
    is_clock_set_back = state.get("paused_at", 0.0) > now
    return 0.0 if is_clock_set_back or until > now + MAX_RETRY_AFTER else until


def save_pause(ledger: Ledger, until: float) -> None:
    """Save the end of a pause for `status` and for the next run."""
    if not ledger.is_shared:
        pause: dict[str, Any] = {"paused_until": until, "paused_at": ledger.now()}

        def change(state: dict[str, Any] | None) -> dict[str, Any]:
            return (state or {}) | pause

        ledger.update_account_fact("pace", change)


def end_pause(ledger: Ledger) -> None:
    """Submit pending rows and poll jobs from now on."""
    ledger.update_account_fact(
        "pace", lambda state: state and state | {"paused_until": 0.0, "pauses": 0.0, "outage": None}
    )
    ledger.forget_delays()
