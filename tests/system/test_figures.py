"""The figures of all papers, drawn from the stored results: a name has one look, whichever of the data sets have it"""
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from robustnb.evidence.ledger import evidence, find_papers

def looks(fig):
    "{label: colours and markers of the lines that bear it}, over all panels"
    found = {}
    for ax in fig.axes:
        for h, label in zip(*ax.get_legend_handles_labels()):
            line = h.lines[0] if hasattr(h, 'lines') else h    # of an error bar the first
            if hasattr(line, 'get_marker'): found.setdefault(label, set()).add((to_hex(line.get_color()), line.get_marker()))
    return found

@pytest.mark.parametrize('key', sorted(find_papers()))
def test_a_name_has_one_look(key):
    paper = find_papers()[key]
    records = evidence(paper, 'small')
    for title, draw in paper.figures.items():
        fig = draw(records)
        if fig is None: continue
        several = {label: v for label, v in looks(fig).items() if len(v) > 1}
        plt.close(fig)
        assert not several, f'{key}, {title}: {several}'
