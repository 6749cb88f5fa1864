"""Many prompts: from a file to a file that survives kills, or from a list to a list.

from specdec import Engine
from specdec.jobs import run_job

run_job(Engine(), "prompts.jsonl", "answers.jsonl", settings={"max_new_tokens": 200})
"""

from __future__ import annotations

from specdec.jobs.answering import answer_rows
from specdec.jobs.job import run_job
from specdec.jobs.summary import JobSummary

__all__ = ["JobSummary", "answer_rows", "run_job"]
