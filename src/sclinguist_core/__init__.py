"""RNA-to-protein translation for cells and tissue sections.

The package exports lazily (PEP 562): ``import sclinguist_core`` costs milliseconds and pulls in
neither torch nor scanpy; each name below imports what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "InputError": "sclinguist_core.errors",
    "Section": "sclinguist_core.data.section",
    "annotate": "sclinguist_core.inference.annotate",
    "embed": "sclinguist_core.inference.embed",
    "evaluate": "sclinguist_core.evaluation.evaluate",
    "explain": "sclinguist_core.inference.explain",
    "finetune": "sclinguist_core.train.finetune",
    "import_checkpoint": "sclinguist_core.model.hyena_import",
    "impute": "sclinguist_core.inference.impute",
    "knockout": "sclinguist_core.inference.knockout",
    "load_checkpoint": "sclinguist_core.model.checkpoint",
    "open_section": "sclinguist_core.data.readers",
    "open_sections": "sclinguist_core.data.readers",
    "predict": "sclinguist_core.inference.predict",
    "predict_iter": "sclinguist_core.inference.predict",
    "predict_to": "sclinguist_core.inference.stream",
    "resolve_genes": "sclinguist_core.vocabulary.genes",
    "resolve_panel": "sclinguist_core.vocabulary.proteins",
    "resolve_protein": "sclinguist_core.vocabulary.proteins",
    "screen": "sclinguist_core.inference.knockout",
}

__all__ = [
    "InputError",
    "Section",
    "__version__",
    "annotate",
    "embed",
    "evaluate",
    "explain",
    "finetune",
    "import_checkpoint",
    "impute",
    "knockout",
    "load_checkpoint",
    "open_section",
    "open_sections",
    "predict",
    "predict_iter",
    "predict_to",
    "resolve_genes",
    "resolve_panel",
    "resolve_protein",
    "screen",
]

if TYPE_CHECKING:
    from sclinguist_core.data.readers import open_section, open_sections
    from sclinguist_core.data.section import Section
    from sclinguist_core.errors import InputError
    from sclinguist_core.evaluation.evaluate import evaluate
    from sclinguist_core.inference.annotate import annotate
    from sclinguist_core.inference.embed import embed
    from sclinguist_core.inference.explain import explain
    from sclinguist_core.inference.impute import impute
    from sclinguist_core.inference.knockout import knockout, screen
    from sclinguist_core.inference.predict import predict, predict_iter
    from sclinguist_core.inference.stream import predict_to
    from sclinguist_core.model.checkpoint import load_checkpoint
    from sclinguist_core.model.hyena_import import import_checkpoint
    from sclinguist_core.train.finetune import finetune
    from sclinguist_core.vocabulary.genes import resolve_genes
    from sclinguist_core.vocabulary.proteins import resolve_panel, resolve_protein


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # A function may share the name of its module's package (evaluation.evaluate), never of a
    # module of this level, so the attribute set here is not shadowed by an import.
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
