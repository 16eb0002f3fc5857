"""The fault suite: everything is killed, cut, stopped and filled up, and every accepted message is accounted for.

    python -m tests.torture --seconds 60 --seed 7 --backend sqlite --kills 60

``run.py`` is the driver. It starts load generators, a web server, flushers and (in long runs) a Celery worker and
two beats as processes (``process.py``, kept by ``fleet.py``) against the local Segment and a real buffer
(``backends.py``), breaks what it can, and counts at both ends (``books.py``), by messageId:

    every accepted message was delivered, waits (in the buffer or the spool), or is a dead letter
    every accepted message is in the archive (or set aside for it), waits, or is a dead letter
"""
