"""All settings live in settings.ini: edit there, not here."""
import shlex
from configparser import ConfigParser
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
reqs = lambda key: shlex.split(cfg.get(key, ''))

extras = {k: reqs(k + '_requirements') for k in ('dev', 'docs', 'bench', 'zoo', 'pretrained', 'diffusers', 'ray')}
extras['dev'] += extras['pretrained'] + extras['diffusers'] + extras['ray']  # the tests use them

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=open('README.md', encoding='utf-8').read(), long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'].split(),
    license='Apache-2.0', license_files=['LICENSE'], url=cfg['git_url'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['results/*.json', 'templates/*.html']},
    python_requires='>=' + cfg['min_python'], install_requires=reqs('requirements'),
    extras_require=extras,
    entry_points=dict(console_scripts=reqs('console_scripts'), nbdev=[f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]),
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3'],
)
