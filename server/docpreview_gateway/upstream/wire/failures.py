"""What the codes of failed jobs mean.

The vendor publishes no list of them for document jobs. Known are the numbers of its synchronous document preview
(product page 436, "Error Codes": -3006 and others) and the names of the service's API errors, which its other kinds of
jobs carry too; a name that says the same as one of these is read alike.
"""

from __future__ import annotations

from docpreview.v1.preview_job_pb2 import JobFailure

_BY_CODE = {
    "-3006": JobFailure.REASON_ENCRYPTED,
    "-3008": JobFailure.REASON_DAMAGED,
    "-3011": JobFailure.REASON_UNSUPPORTED,
    "-3015": JobFailure.REASON_NO_SUCH_PAGE,
    "-3075": JobFailure.REASON_TOO_LARGE,
    "resourcenotfound": JobFailure.REASON_NOT_FOUND,
    "nosuchkey": JobFailure.REASON_NOT_FOUND,
    "resourceaccessdenied": JobFailure.REASON_PERMISSION,
    "accessdenied": JobFailure.REASON_PERMISSION,
    "fileopenfailed": JobFailure.REASON_DAMAGED,
    "imagetoolarge": JobFailure.REASON_TOO_LARGE,
    "toomanypages": JobFailure.REASON_TOO_LARGE,
}
_BY_END = {"timeout": JobFailure.REASON_TIMED_OUT, "timedout": JobFailure.REASON_TIMED_OUT}


def reason_of(code: str, *, has_password: bool) -> JobFailure.Reason.ValueType:
    """Why a job with this code failed; REASON_UNSPECIFIED for a code whose meaning is not known.

    The cloud has one code for documents that need a password and for a wrong one: `has_password` tells them apart.
    """
    name = code.strip().lower()
    found = _BY_CODE.get(name, JobFailure.REASON_UNSPECIFIED)
    if found == JobFailure.REASON_ENCRYPTED and has_password:
        return JobFailure.REASON_WRONG_PASSWORD
    if found == JobFailure.REASON_UNSPECIFIED:
        return next((reason for end, reason in _BY_END.items() if name.endswith(end)), found)
    return found
