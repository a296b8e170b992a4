"""Microsoft's Presidio as additional masking of names, places and others, by a language model of spaCy.

An extra (`pip install headrace[presidio]`), imported only where a setting asks for it. It takes milliseconds per text,
where the rules of `projections.values.masking` take microseconds.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version
from typing import Any

LONGEST = 100_000
"""Maximum number of characters per call: spaCy's memory grows with them."""

_MASKED = re.compile(r"‹[^‹›\n]{1,40}›")


class PresidioMissing(Exception):
    """Presidio, or its model of the language, is configured but not installed."""


class Presidio:
    """Replaces every entity that Presidio finds by its kind, such as `‹person›`; masked text stays."""

    def __init__(self, language: str, model: str) -> None:
        """`model` is the name of an installed model of spaCy, or its folder. Raises: PresidioMissing."""
        configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
        try:
            nlp = import_module("presidio_analyzer.nlp_engine").NlpEngineProvider(nlp_configuration=configuration)
            # A model that is not installed would be downloaded.
            import_module("spacy").load(model)
            analyzer = import_module("presidio_analyzer").AnalyzerEngine
            self._engine: Any = analyzer(nlp_engine=nlp.create_engine(), supported_languages=[language])
            # Use the installed list of domains; else it would download one.
            domains: Any = import_module("tldextract.tldextract")
            domains.TLD_EXTRACTOR = domains.TLDExtract(suffix_list_urls=())
            self.version = f"presidio {version('presidio-analyzer')} {language} {model}"
        except (ImportError, OSError) as error:
            advice = "pip install 'headrace[presidio]', and the model by `python -m spacy download`"
            raise PresidioMissing(f"Presidio cannot be used: {error}. Install it: {advice}.") from error
        self._language = language

    def __call__(self, text: str) -> str:
        return "".join(self._part(text[start : start + LONGEST]) for start in range(0, len(text), LONGEST))

    def _part(self, text: str) -> str:
        kept = [match.span() for match in _MASKED.finditer(text)]
        found = sorted(self._engine.analyze(text=text, language=self._language), key=lambda it: (it.start, -it.end))
        parts, done = [], 0
        for entity in found:
            overlaps = any(start < entity.end and entity.start < end for start, end in kept)
            if entity.start >= done and not overlaps:
                parts += [text[done : entity.start], f"‹{entity.entity_type.lower()}›"]
                done = entity.end
        return "".join([*parts, text[done:]])
