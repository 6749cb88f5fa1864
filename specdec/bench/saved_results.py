"""Saved results: what is read back of the results.json of ``specdec bench paper``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Row(BaseModel):
    strategy: str
    set: str
    tau: float | None
    speedup: float
    tokens_per_second: float
    prompts: int
    alpha: list[float]
    tried: list[int]


class _Mean(BaseModel):
    strategy: str
    tau: float | None
    tau_interval: tuple[float, float] | None
    speedup: float
    speedup_interval: tuple[float, float] | None


class _Settings(BaseModel):
    temperature: float
    batch_size: int
    max_new_tokens: int


class _Prompts(BaseModel):
    sets: dict[str, int]


class _Report(BaseModel):
    model: str
    dtype: str
    device: str
    date: str
    settings: _Settings
    prompts: _Prompts
    results: list[_Row] = Field(min_length=1)
    by_set: list[_Row]
    means: list[_Mean] = Field(min_length=1)


class SavedResults(BaseModel):
    """What the figures need of a file that this may not have written."""

    model_config = ConfigDict(title="results.json")

    reports: list[_Report] = Field(min_length=1)
