import pytest

from sclinguist_core.train.masking import Masking


@pytest.mark.parametrize(
    "values",
    [{"gene_rate": 0.0}, {"protein_rate": 1.0}, {"max_genes": 0}, {"level_weight": -0.1}],
)
def test_refused_values(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Masking(**values)
