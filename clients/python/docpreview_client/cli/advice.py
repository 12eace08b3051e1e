"""What to do about an error: by its reason, else by the kind of error."""

from typing import Final

import grpc

from docpreview_client import errors

_OPERATORS: Final = "Tell the operators of the gateway: "
_BY_REASON: Final = {
    "MALFORMED_MESSAGE": "Report it: this client and the gateway do not understand each other. Compare their versions.",
    "REQUEST_ID_REUSED": "Take a new --request-id for a new job, or repeat the first request unchanged.",
    "INPUT_OBJECT_NOT_FOUND": "Check the name of the document, and the bucket.",
    "QUEUE_NOT_FOUND": "Check the id of the queue: `docpreview queues` lists them.",
    "OBJECT_NOT_FOUND": "Check the name of the object, and the bucket.",
    "BUCKET_NOT_FOUND": f"{_OPERATORS}a bucket of its configuration does not exist in the cloud.",
    "BUCKET_NOT_CONFIGURED": "Check the bucket's name: the gateway has only the buckets of its configuration.",
    "UPSTREAM_ACCESS_DENIED": f"{_OPERATORS}its cloud key lacks the right for this bucket.",
    "UPSTREAM_UNMAPPED": f"{_OPERATORS}the cloud refused for a reason that the gateway does not know.",
    "UPSTREAM_QUOTA": f"{_OPERATORS}a quota of the cloud account is used up. Waiting may not help.",
    "REPLY_TOO_LARGE": "Ask for fewer jobs at a time, or without addresses of pages.",
    "CONCURRENCY_LIMITED": "End other calls, waits and watches of this caller, or try again later.",
    "PAGE_BUDGET_TOO_SMALL": "Ask for fewer pages, or for a larger budget.",
    "CREATE_OUTCOME_AMBIGUOUS": "Look for the job in the list. Only a new --request-id makes a new job.",
    "CREATE_IN_PROGRESS": "Repeat it with the same --request-id: it gets the job of the create that is in flight.",
    "LEDGER_UNAVAILABLE": "Nothing was sent. Try again later with the same --request-id; "
    "if it stays so, tell the operators of the gateway: it cannot record creates.",
    "LIMITER_UNAVAILABLE": "Nothing was sent. Try again later; "
    "if it stays so, tell the operators of the gateway: it cannot count calls or pages.",
    "IDENTITY_UNAVAILABLE": "Try again later; "
    "if it stays so, tell the operators of the gateway: it cannot read the keys of the token's issuer.",
    "CLOCK_SKEW": f"{_OPERATORS}its clock and the cloud's differ.",
    "SHUTTING_DOWN": "Try again: another replica answers.",
    "WATCH_LIMIT_REACHED": "Watch again.",
    "UPSTREAM_NOT_IMPLEMENTED": "The cloud does not offer this here. Waiting does not help.",
}
_BY_KIND: Final[tuple[tuple[type[errors.DocPreviewError], str], ...]] = (
    (errors.InvalidRequest, "Change the request."),
    (errors.NotFound, "Check bucket, id and name. The cloud keeps the records of jobs for a month."),
    (errors.Unauthenticated, "Give a valid token (--token-file) or client certificate (--cert, --key)."),
    (errors.PermissionDenied, "Ask the operators of the gateway for the permission, or check the bucket's name."),
    (errors.FailedPrecondition, "Put the bucket or the cloud account in order, then try again."),
    (errors.BudgetExhausted, "Ask for fewer pages, wait for the next period, or ask for a larger budget."),
    (errors.Throttled, "Try again later."),
    (errors.Unavailable, "Try again later."),
    (errors.DeadlineExceeded, "Try again, with a longer --timeout if necessary."),
    (
        errors.OutcomeUnknown,
        "The job may exist. With the same --request-id creating again is safe; without, check the list first.",
    ),
    (errors.DocPreviewError, "Report it to the operators of the gateway."),
)


def advice(error: errors.DocPreviewError) -> str:
    """A sentence or two. The address is only in doubt if no gateway has answered."""
    if found := _BY_REASON.get(error.reason):
        return found
    if not error.reason and isinstance(error, errors.Unavailable):
        return "Check --target, or try again later."
    if not error.reason and error.code is grpc.StatusCode.UNIMPLEMENTED:
        return "Check --target: what answers there is no docpreview gateway, or an older one."
    return next(text for kind, text in _BY_KIND if isinstance(error, kind))
