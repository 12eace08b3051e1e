"""Exit codes of the command."""

from enum import IntEnum

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import errors
from docpreview_client.watching import TERMINAL_STATES


class ExitCode(IntEnum):
    """Exit codes by the reaction that a script needs. 2 is the convention for wrong usage."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    INVALID_REQUEST = 3
    NOT_FOUND = 4
    DENIED = 5
    TRY_AGAIN = 6
    OUTCOME_UNKNOWN = 7
    FAILED_PRECONDITION = 8
    NOT_FINISHED = 9
    USED_UP = 10
    INTERNAL = 70
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES_HELP = """Exit codes:

* 0: done
* 1: the job ended as failed or cancelled (wait, watch, preview)
* 2: wrong usage
* 3: invalid request, or more pages than the whole budget has
* 4: not found
* 5: not authenticated, or permission denied
* 6: unavailable, throttled or too slow: try again
* 7: a create may or may not have made a job: list the jobs before creating again
* 8: bucket or cloud account must be put in order first
* 9: the job had not ended when --timeout passed (wait, watch, preview)
* 10: a page budget, or a quota of the cloud account, is used up: not before the next period, or with a larger one
* 70: internal or other error
* 129, 130, 143: ended by SIGHUP, Ctrl-C or SIGTERM; the job goes on
"""

_BY_ERROR: tuple[tuple[type[errors.DocPreviewError], ExitCode], ...] = (
    (errors.InvalidRequest, ExitCode.INVALID_REQUEST),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Unauthenticated, ExitCode.DENIED),
    (errors.PermissionDenied, ExitCode.DENIED),
    (errors.TransientError, ExitCode.TRY_AGAIN),
    (errors.BudgetExhausted, ExitCode.USED_UP),
    (errors.OutcomeUnknown, ExitCode.OUTCOME_UNKNOWN),
    (errors.FailedPrecondition, ExitCode.FAILED_PRECONDITION),
)


def of_error(error: errors.DocPreviewError) -> ExitCode:
    """The exit code of a command that failed with `error`."""
    if isinstance(error, errors.PreviewUnfinished) and isinstance(error.cause, errors.DocPreviewError):
        return of_error(error.cause)
    if error.reason == "PAGE_BUDGET_TOO_SMALL":  # the same request never fits
        return ExitCode.INVALID_REQUEST
    if error.retry == "later":  # hours or days, which no script should spend with trying again
        return ExitCode.USED_UP
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.INTERNAL)


def of_job(job: PreviewJob) -> ExitCode:
    """The exit code of a command that waited for `job`."""
    if job.state == PreviewJob.STATE_SUCCESS:
        return ExitCode.OK
    return ExitCode.JOB_FAILED if job.state in TERMINAL_STATES else ExitCode.NOT_FINISHED
