"""What the exporter, the runner, the README and the site share: the directives of cells, tidy tables, and what is no notebook."""
import re
from pathlib import Path

HEAD = re.compile(r'(?:[ \t]*#[ \t]*\|.*\n?|[ \t]*\n)*')
LINE = re.compile(r'[ \t]*#[ \t]*\|[ \t]*([\w-]+)[ \t]*:?[ \t]*(.*)')
INDEX_ROW = re.compile(r'<th></th>((?:\s*<th>[^<]*</th>)+\s*</tr>)\s*<tr>\s*<th>([^<]+)</th>(?:\s*<th></th>)+\s*</tr>(?=\s*</thead>)')

def directives(src):
    "Split the leading `#| name: value` lines off the source of a cell: (dict of them, the rest)"
    head = HEAD.match(src)[0]
    found = map(LINE.match, head.splitlines())
    return {m[1]: m[2].strip() for m in found if m}, src[len(head):]

def checkpoint(path):
    "Whether a path is one of the copies that Jupyter keeps of a notebook, in a folder beside it"
    return '.ipynb_checkpoints' in Path(path).parts

def one_header(html):
    "A pandas table with the index's name in the first header row; pandas gives it a row of its own"
    return INDEX_ROW.sub(r'<th>\2</th>\1', html)
