"""The render process, which opens documents: one JSON line in, one JSON line out, until its input ends.

pdfium is not thread-safe, and a hostile document may crash or hang it. To isolate the emulator, documents are
opened here, with a limit on memory, and the emulator kills this process when it takes too long.
"""

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.pages import RenderOptions
from docpreview_emulator.render import render

MEMORY_LIMIT = 4 * 1024**3


def main() -> None:
    """Serve until standard input ends, which happens also when the emulator dies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    del soft
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(task: dict[str, object]) -> dict[str, object]:
    try:
        source, directory = Path(str(task["source"])), Path(str(task["directory"]))
        rendering = render(source, directory, RenderOptions(**task["options"]))  # type: ignore[arg-type]
    except JobFailure as failure:
        return {"code": failure.code, "message": failure.message}
    except MemoryError:
        return {"code": "ImageTooLarge", "message": "The outputs need more memory than a conversion may use."}
    except OSError as error:
        return {"code": "InternalError", "message": f"The outputs could not be written: {error.strerror or error}"}
    except Exception as error:  # noqa: BLE001 - whatever a document does to the libraries is the document's failure
        return {"code": "FileOpenFailed", "message": f"The document could not be drawn ({type(error).__name__})."}
    return asdict(rendering)


if __name__ == "__main__":
    main()
