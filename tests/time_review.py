"""Time a review of 100 rows by keyboard in a real Chromium: what the page costs beside thinking.

    uv run python tests/time_review.py [ROWS]

Draws rows of a job, opens the review's page, presses a key for each row, saves, and adds the sheet.
What is printed is the machine's part; a person also reads each row.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from browser import Chromium
from reviews import LABELS, answered, goods


def main(count: int) -> None:
    """Judge rows, and print what it took."""
    scratch = Path(tempfile.mkdtemp(prefix="review-"))
    frame, labels = goods(dict.fromkeys(LABELS, count))
    review = answered(frame, labels, scratch, labels=LABELS).review(n=count, by="answer")
    page = review.page(scratch / "review.html")
    times = []
    with Chromium() as browser:
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(scratch))
        start = time.perf_counter()
        browser.open(page.as_uri())
        opened = time.perf_counter() - start
        for row in range(count):
            start = time.perf_counter()
            browser.press(str(row % len(LABELS) + 1))
            # The next row stands on the page when the question is answered.
            shown = browser.ask("document.getElementById('count').textContent")
            times.append(time.perf_counter() - start)
            assert shown.startswith(f"{row + 1:,} of"), shown
    times.sort()
    found = {
        "rows": count,
        "page opens, s": round(opened, 2),
        "all keys, s": round(sum(times), 2),
        "a row, median ms": round(1000 * times[count // 2], 1),
        "a row, slowest ms": round(1000 * times[-1], 1),
        "minutes at 5 s of reading a row": round((sum(times) + 5 * count) / 60, 1),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
