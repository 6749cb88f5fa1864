"""Counters of decoding for Prometheus: an observer, made and given to an engine by hand."""

from __future__ import annotations

from specdec_plugins.prometheus.counters import PrometheusCounters

__all__ = ["PrometheusCounters"]
