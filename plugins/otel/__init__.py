"""OpenTelemetry spans of decoding: an observer, made and given to an engine by hand."""

from __future__ import annotations

from specdec_plugins.otel.spans import OpenTelemetrySpans

__all__ = ["OpenTelemetrySpans"]
