"""What to do about an error: by its reason, else by the kind of error. And about a job that failed."""

from typing import Final

import grpc

from docpreview.v1.preview_job_pb2 import JobFailure
from docpreview_client import errors

_OPERATORS: Final = "Tell the operators of the gateway: "
_LATER: Final = "Try again later."
_BY_REASON: Final = {
    "INVALID_REQUEST": "Change what is named above.",
    "MALFORMED_MESSAGE": "Report it: this client and the gateway do not understand each other. Compare their versions.",
    "REQUEST_ID_REUSED": "Take a new --request-id for a new job, or repeat the first request unchanged.",
    "JOB_NOT_FOUND": "Check the bucket and the id of the job. The cloud keeps the records of jobs for a month.",
    "INPUT_OBJECT_NOT_FOUND": "Check the name of the document, and the bucket.",
    "QUEUE_NOT_FOUND": "Check the id of the queue: `docpreview queues` lists them.",
    "OBJECT_NOT_FOUND": "Check the name of the object, and the bucket.",
    "BUCKET_NOT_FOUND": f"{_OPERATORS}a bucket of its configuration does not exist in the cloud.",
    "BUCKET_NOT_CONFIGURED": "Check the bucket's name: the gateway has only the buckets of its configuration.",
    "NOT_PERMITTED": "Ask the operators of the gateway for the permission, or check the bucket's name and the key.",
    "UNAUTHENTICATED": "Give a valid token (--token-file) or client certificate (--cert, --key).",
    "INPUT_OBJECT_UNREADABLE": "Let the cloud's role CI_QCSRole read the document's bucket.",
    "CI_ROLE_MISSING": "Give the cloud account the role CI_QCSRole: its console offers it when document processing is "
    "enabled.",
    "OUTPUT_BUCKET_DENIED": "Let the cloud's role CI_QCSRole write to the output bucket, or name another one with "
    "--output-bucket.",
    "DOC_SERVICE_NOT_ENABLED": "Enable document processing for the bucket in the cloud's console.",
    "ACCOUNT_BLOCKED": "Settle the cloud account's arrears, or ask the vendor why it is blocked.",
    "INPUT_OBJECT_EMPTY": "The document is empty: upload it again.",
    "INPUT_OBJECT_TOO_LARGE": "The cloud converts documents of at most 200 MiB: make it smaller.",
    "INPUT_FORMAT_UNSUPPORTED": "Convert the document to a kind that is named above, such as PDF, or give it "
    "the suffix of what it is.",
    "INPUT_FORMAT_MISMATCH": "Give the document the suffix of what it is.",
    "INPUT_ENCRYPTED": "The document needs its password: --password-file, or --password - to be asked for it.",
    "UPLOAD_NOT_FOUND": "Upload the document again.",
    "UPLOAD_INCOMPLETE": "Upload the document again, and do not change it meanwhile.",
    "OBJECT_EXISTS": "Upload the document under another key.",
    "UPSTREAM_INVALID_ARGUMENT": "Change what the message names: the cloud does not take it.",
    "UPSTREAM_ACCESS_DENIED": f"{_OPERATORS}its cloud key lacks the right for this bucket.",
    "UPSTREAM_UNMAPPED": f"{_OPERATORS}the cloud refused for a reason that the gateway does not know.",
    "UPSTREAM_QUOTA": f"{_OPERATORS}a quota of the cloud account is used up. Waiting may not help.",
    "UPSTREAM_THROTTLED": "Try again later: the cloud takes no more requests now.",
    "UPSTREAM_INTERNAL": "Try again later: the cloud has an error of its own.",
    "UPSTREAM_UNAVAILABLE": "Try again later: the cloud is not available.",
    "UPSTREAM_TIMEOUT": "Try again later: the cloud is too slow.",
    "UPSTREAM_UNREACHABLE": "Try again later; if it stays so, tell the operators of the gateway: it cannot reach the "
    "cloud.",
    "UPSTREAM_BREAKER_OPEN": "Try again later: most recent requests to the cloud have failed.",
    "UPSTREAM_HOST_REJECTED": f"{_OPERATORS}bucket, region or endpoint of its configuration are wrong.",
    "UPSTREAM_CREDENTIALS": f"{_OPERATORS}the cloud refuses its key.",
    "WRONG_REGION": f"{_OPERATORS}the bucket is in another region than its configuration says.",
    "UPSTREAM_BAD_RESPONSE": f"{_OPERATORS}something answers in the cloud's place, or in a way that it cannot read.",
    "UPSTREAM_NOT_IMPLEMENTED": "The cloud does not offer this here. Waiting does not help.",
    "GATEWAY_MALFORMED_REQUEST": "Report it to the operators of the gateway, with the request id.",
    "INTERNAL": "Report it to the operators of the gateway, with the request id.",
    "REPLY_TOO_LARGE": "Ask for fewer jobs at a time, or without addresses of pages.",
    "OVERLOADED": _LATER,
    "RATE_LIMITED": "Call less often, or ask the operators of the gateway for a higher limit.",
    "ACCOUNT_RATE_LIMITED": "Try again later: all callers together ask more of the cloud account than it allows.",
    "CONCURRENCY_LIMITED": "End other calls, waits and watches of this caller, or try again later.",
    "PAGE_BUDGET_EXHAUSTED": "Ask for fewer pages, wait for the next period, or ask for a larger budget.",
    "PAGE_BUDGET_TOO_SMALL": "Ask for fewer pages, or for a larger budget.",
    "CREATE_OUTCOME_UNKNOWN": "The job may exist. With the same --request-id creating again is safe; without, check "
    "the list first.",
    "CREATE_OUTCOME_AMBIGUOUS": "Look for the job in the list. Only with a new --request-id, or without one, does the "
    "command make a new job.",
    "CREATE_IN_PROGRESS": "Repeat it with the same --request-id: it gets the job of the create that is in flight.",
    "LEDGER_UNAVAILABLE": "Try again later; if it stays so, tell the operators of the gateway: it cannot record "
    "creates, and those of this command have to be recorded, with or without --request-id.",
    "LIMITER_UNAVAILABLE": "Nothing was sent. Try again later; "
    "if it stays so, tell the operators of the gateway: it cannot count calls or pages.",
    "IDENTITY_UNAVAILABLE": "Try again later; "
    "if it stays so, tell the operators of the gateway: it cannot read the keys of the token's issuer.",
    "CLOCK_SKEW": f"{_OPERATORS}its clock and the cloud's differ.",
    "SHUTTING_DOWN": "Try again: another replica answers.",
    "WATCH_LIMIT_REACHED": "Watch again.",
    "DEADLINE_EXCEEDED": "Try again, with a longer --timeout if necessary.",
}
_BY_KIND: Final[tuple[tuple[type[errors.DocPreviewError], str], ...]] = (
    (errors.InvalidRequest, "Change what the message names."),
    (errors.NotFound, "Check bucket, id and name. The cloud keeps the records of jobs for a month."),
    (errors.Unauthenticated, _BY_REASON["UNAUTHENTICATED"]),
    (errors.PermissionDenied, "Ask the operators of the gateway for the permission, or check the bucket's name."),
    (errors.FailedPrecondition, "Put in order what the message names, then try again."),
    (errors.BudgetExhausted, _BY_REASON["PAGE_BUDGET_EXHAUSTED"]),
    (errors.Throttled, _LATER),
    (errors.Unavailable, _LATER),
    (errors.DeadlineExceeded, _BY_REASON["DEADLINE_EXCEEDED"]),
    (errors.OutcomeUnknown, _BY_REASON["CREATE_OUTCOME_UNKNOWN"]),
    (errors.DocPreviewError, "Report it to the operators of the gateway."),
)
_STORAGE: Final = (
    "Try again later, or check that this machine reaches the storage, whose address the gateway gives "
    "(upstream.object_url_base)."
)
# What the client or gRPC says of a connection that was not made. Words that gRPC does not say any more only cost their
# hint.
_BY_CONNECTION: Final = (
    ("could not be uploaded", _STORAGE),
    ("could not be fetched", _STORAGE),
    ("Hostname Verification", "The gateway's certificate has another name: give one of its names as --server-name."),
    ("CERTIFICATE_VERIFY_FAILED", "Give the authorities of the gateway's certificate as --ca."),
    ("security handshaker", "Check that --key is the key of --cert."),
    (
        "Socket closed",
        "Check --target. A gateway with TLS needs --tls or --ca, and --cert and --key where it asks for certificates.",
    ),
)
_BY_FAILURE: Final = {
    JobFailure.REASON_UNSPECIFIED: "Ask the vendor what the code means, or try again, which is charged again.",
    JobFailure.REASON_ENCRYPTED: _BY_REASON["INPUT_ENCRYPTED"],
    JobFailure.REASON_WRONG_PASSWORD: "Give the document's right password.",
    JobFailure.REASON_UNSUPPORTED: "Convert the document to a kind that the cloud takes, such as PDF.",
    JobFailure.REASON_DAMAGED: "Open the document and save it again: it is empty, damaged, or not what its name says.",
    JobFailure.REASON_TOO_LARGE: "Ask for fewer pages or smaller images (--page-ranges, --zoom, --dpi).",
    JobFailure.REASON_NO_SUCH_PAGE: "Ask for pages and sheets that the document has.",
    JobFailure.REASON_TIMED_OUT: "Ask for fewer pages at a time.",
    JobFailure.REASON_NOT_FOUND: "Upload the document again: it was gone when the conversion began.",
    JobFailure.REASON_PERMISSION: "Let the cloud's role CI_QCSRole read the document and write the results.",
}


def advice(error: errors.DocPreviewError) -> str:
    """A sentence or two. The address is only in doubt if no gateway has answered."""
    if found := _BY_REASON.get(error.reason):
        return found
    if not error.reason and isinstance(error, errors.Unavailable):
        return next(
            (text for words, text in _BY_CONNECTION if words in error.message), "Check --target, or try again later."
        )
    if not error.reason and error.code is grpc.StatusCode.UNIMPLEMENTED:
        return "Check --target: what answers there is no docpreview gateway, or an older one."
    return next(text for kind, text in _BY_KIND if isinstance(error, kind))


def advice_on_failure(reason: JobFailure.Reason.ValueType) -> str:
    """What to do about a job that failed."""
    return _BY_FAILURE.get(reason, _BY_FAILURE[JobFailure.REASON_UNSPECIFIED])
