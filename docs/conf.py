"""The site. Build it with `make docs`; nothing is executed and nothing is fetched, by the build or by the pages."""
import sys
from configparser import ConfigParser
from pathlib import Path

docs = Path(__file__).resolve().parent
root, nbs = docs.parent, docs.parent/'nbs'
sys.path[:0] = [str(docs), str(root/'tools'), str(root)]
import home, light
from ledger_page import ledger_page
from nbdev_sphinx import Project

ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

project, author, release = cfg['title'], cfg['author'], cfg['version']
copyright = author
extensions = ['myst_nb', 'sphinx.ext.viewcode', 'sphinx.ext.mathjax', 'sphinx_copybutton', 'nbdev_sphinx', 'light']
root_doc = 'index'
exclude_patterns = ['_*', '**/_*', '**.ipynb_checkpoints', '**.txt']
suppress_warnings = ['mystnb.unknown_mime_type']

nb_execution_mode = 'off'
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_block', 'attrs_inline', 'deflist']
myst_dmath_double_inline = True
myst_heading_anchors = 3
add_module_names = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
viewcode_follow_imported_members = False  # would import the package
toc_object_entries = False

# --- sidebar: guides, papers by family, attacks and foundations, evidence, benchmarks, commands, reference ------------
def section(caption, pages): return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', *pages, '```', ''])

shown = {caption: [p.path.removesuffix('.ipynb') for p in found] for caption, found in home.sections(nbs)}
shown['Guides'].append('ledger')
nbdev_toc = '\n'.join(section(caption, found) for caption, found in (shown | {'Reference': ['api']}).items())
nbdev_pages = {'api-index': Project.api_index, 'ledger': ledger_page}

# --- look -----------------------------------------------------------------------------------------------------------
html_theme = 'sphinx_book_theme'
html_title = project
html_favicon = '_static/favicon.svg'
html_context = {'default_mode': 'auto'}
html_static_path = ['_static']
html_css_files = ['icons.css', 'custom.css']
html_sourcelink_suffix = ''
html_theme_options = dict(repository_url=cfg['git_url'], path_to_docs='nbs', use_repository_button=True, use_source_button=True,
                          use_download_button=True, navbar_persistent=[], show_navbar_depth=2, show_toc_level=2,
                          home_page_in_toc=True, article_header_start=['toggle-primary-sidebar.html', 'breadcrumbs.html'], footer_content_items=['copyright'])
mathjax_path, mathjax3_config = 'mathjax/startup.js', light.MATHJAX
