"""What a flush did, in numbers and in one line."""

from __future__ import annotations

from dataclasses import dataclass

from segment_fallback.wording import counted


@dataclass
class Report:
    """What a flush did. ``trouble`` is the last thing that went wrong, in one line, or empty."""

    delivered: int = 0
    batches: int = 0
    buried: int = 0
    busy: int = 0
    """Parts that another flusher holds, or that wait before they try again."""
    unspooled: int = 0
    """Messages that came back from the spool into the buffer."""
    unarchived: int = 0
    """Messages that were delivered, and that the archive will never have."""
    trouble: str = ""
    misconfigured: bool = False
    """Whether messages wait for somebody to mend the settings: no write key, or one that Segment does not know."""
    unfinished: bool = False
    """Whether its budget, or the end of the process, cut it off, so that more may wait that could be sent."""

    def __str__(self) -> str:
        batches, buried = counted(self.batches, "batch", "batches"), counted(self.buried, "dead letter")
        text = f"{self.delivered} delivered in {batches}, {buried}"
        if self.unspooled:
            text += f", {self.unspooled} drained from the spool"
        if self.unarchived:
            text += f", {self.unarchived} missing in the archive"
        if self.busy:
            text += f", {counted(self.busy, 'part')} busy or backing off"
        return f"{text}; {self.trouble}" if self.trouble else text
